"""Saves the models that the end-to-end tests deploy: `python save_models.py FOLDER`.

A process of its own, since importing MLflow warns of things that are errors in a test's process.
Models from code: what is saved is a text, so nothing is pickled and no requirement is inferred.
"""

import sys
import textwrap
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.models.signature import infer_signature

ROW = np.array([[5.1, 3.5, 1.4, 0.2]])
ANSWER = """
def predict(self, context, model_input, params=None):
    {body}
"""
LOAD = """
def load_context(self, context):
    {body}
"""
NOTHING = ANSWER.format(body="return [0]")

SOURCES = {
    # These wait rather than compute: the load of ten pods then fits on two cores.
    "steady": ANSWER.format(body="time.sleep(0.04); return [1] * len(model_input)"),
    "other": ANSWER.format(body="time.sleep(0.04); return [2] * len(model_input)"),
    # As a model does that keeps its one core busy: more in flight in one pod brings nothing. So long that
    # what a slow machine adds to it does not matter.
    "one-by-one": ANSWER.format(body="with ALONE: time.sleep(0.15); return [1] * len(model_input)"),
    "fifth-of-a-second": ANSWER.format(body="time.sleep(0.2); return [1] * len(model_input)"),
    "deadlocks": ANSWER.format(
        body="if model_input[0][0] == 666: ALONE.acquire()\n    with ALONE: return [4]"
    ),
    "waits": ANSWER.format(body="time.sleep(float(model_input[0][0])); return [3] * len(model_input)"),
    "crashes": LOAD.format(body="raise RuntimeError('the weights are corrupt')") + NOTHING,
    "hangs": LOAD.format(body="time.sleep(3600)") + NOTHING,
    "twice": ANSWER.format(body="return 2 * model_input"),
    "errs": ANSWER.format(body="raise ValueError('no such flower')"),
    "errs-later": ANSWER.format(body="raise ValueError('no such flower today')"),
    "eats": ANSWER.format(body="self.held = [bytearray(b'x' * (1 << 20)) for _ in range(4096)]; return [0]"),
}


def save(name: str, folder: Path) -> None:
    code = folder / f"{name}_model.py"
    methods = textwrap.indent(SOURCES[name], "    ")
    code.write_text(
        "import threading\nimport time\nimport mlflow.pyfunc\nfrom mlflow.models import set_model\n\n"
        "ALONE = threading.Lock()\n\n"
        f"class Model(mlflow.pyfunc.PythonModel):\n{methods}\n\nset_model(Model())\n"
    )
    # Saving runs the example, which these do not survive, or only after a while.
    example = {} if name in ("eats", "hangs", "crashes", "waits", "errs-later") else {"input_example": ROW}
    mlflow.pyfunc.save_model(
        path=str(folder / name),
        python_model=str(code),
        signature=infer_signature(ROW, np.array([1])),
        pip_requirements=[],
        **example,
    )


if __name__ == "__main__":
    for each in SOURCES:
        save(each, Path(sys.argv[1]))
