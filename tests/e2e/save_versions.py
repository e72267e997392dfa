"""Saves a model that answers with the versions it runs on: `save_versions.py FOLDER PYTHON REQUIREMENT…`."""

import sys
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow.models import infer_signature

SOURCE = """
import platform

import mlflow.pyfunc
import sklearn
from mlflow.models import set_model
from sklearn.linear_model import LogisticRegression


class Versions(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])

    def predict(self, context, model_input, params=None):
        answer = int(self.model.predict([[1.0]])[0])
        return [platform.python_version(), sklearn.__version__, answer]


set_model(Versions())
"""

folder, python = Path(sys.argv[1]), sys.argv[2]
code = folder.with_suffix(".py")
code.write_text(SOURCE)
example = pd.DataFrame({"x": [1.0]})  # with a signature, which is what the fast path reads
mlflow.pyfunc.save_model(
    folder,
    python_model=str(code),
    pip_requirements=sys.argv[3:],
    signature=infer_signature(example),
    input_example=example,
)
recorded = folder / "python_env.yaml"
recorded.write_text(f"""
python: {python}
build_dependencies: [pip, setuptools, wheel]
dependencies: [-r requirements.txt]
""")
