"""Train and save the test models into a folder: iris (and a row of it as Parquet), odd_model, start_model."""

import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

target = Path(sys.argv[1])
scripts = Path(__file__).parent

rows, species = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(max_iter=500).fit(rows, species)
mlflow.sklearn.save_model(
    model,
    target / "iris",
    signature=infer_signature(rows, model.predict(rows), params={"scale": 1.0}),
    input_example=rows.head(2),
    pip_requirements=["scikit-learn"],  # inferring them takes seconds
)
rows.head(1).to_parquet(target / "row.parquet")
for name, example in (("odd_model", None), ("start_model", [{"age": 3}])):
    script = str(scripts / f"{name}.py")
    mlflow.pyfunc.save_model(
        target / name, python_model=script, input_example=example, pip_requirements=["mlflow"]
    )
