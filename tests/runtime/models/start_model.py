"""A model whose start does what the environment says in TEST_START."""

import os
import sys
import time
from pathlib import Path

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Start(PythonModel):
    def load_context(self, context):
        how = os.environ.get("TEST_START", "")
        if how == "raises":
            raise ValueError("the weights are torn")
        if how == "exits":
            sys.exit(0)
        if how.startswith("waits:"):
            self._wait(Path(how.removeprefix("waits:")))

    def predict(self, context, model_input, params=None):
        how = os.environ.get("TEST_START", "")
        if how == "example raises":
            raise ValueError("no such column: age")
        if how.startswith("example waits:"):
            self._wait(Path(how.removeprefix("example waits:")))
        return model_input

    def _wait(self, gate):
        gate.with_name(gate.name + ".begun").touch()
        deadline = time.monotonic() + 60
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


set_model(Start())
