"""A model that does what the request says: {"inputs": [{"do": NAME, …}]}."""

import multiprocessing
import os
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Odd(PythonModel):
    def predict(self, context, model_input, params=None):
        if isinstance(model_input, dict):
            return {"echo": model_input, "params": params}
        order = {name: value.item() for name, value in model_input[0].items()}  # MLflow made arrays of them
        return getattr(self, order["do"])(order)

    def wait(self, order):
        """Leave a file that says we are here, and go on when another one appears."""
        gate = Path(order["gate"])
        Path(f"{gate}.{order['name']}.begun").touch()
        deadline = time.monotonic() + 60
        while not gate.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return [order["name"]]

    def threads(self, _):
        return [sum(thread.name.startswith("predict") for thread in threading.enumerate())]

    def raises(self, _):
        raise KeyError("no such feature")

    def exits(self, order):
        sys.exit(order["status"])

    def recurses(self, order):
        return self.recurses(order)

    def interrupts(self, _):
        raise KeyboardInterrupt

    def returns_object(self, _):
        return object()

    def returns_none(self, _):
        return None

    def returns_nan(self, _):
        return np.array([float("nan"), float("inf"), 1.5])

    def returns_frame(self, _):
        return pd.DataFrame({"when": [pd.Timestamp("2026-01-02")], "what": ["x"], "raw": [b"\x00\xff"]})

    def returns_text(self, _):
        return "é\u2028 text"

    def process_ids(self, _):
        return [os.getpid(), os.getppid()]

    def no_delay(self, _):
        """TCP_NODELAY of each connection that this process has accepted."""
        found = [_no_delay(int(link.name)) for link in Path("/proc/self/fd").iterdir()]
        return [delay for delay in found if delay is not None]

    def forks(self, order):
        """What becomes of a child that goes on as we do, or that does its work and ends."""
        if order["how"] == "multiprocessing":
            child = multiprocessing.get_context("fork").Process(target=os._exit, args=(5,))
            child.start()
            child.join(30)
            return [child.exitcode]
        child = os.fork()
        if child == 0:
            return ["the child"]
        deadline = time.monotonic() + 30
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        return [os.waitstatus_to_exitcode(ended[1]) if ended[0] else "alive"]

    def breaks(self, order):
        """Leave nothing of the process as it was."""
        os.chdir("/")
        sys.stdout.close()
        sys.stderr = None if order["how"] == "none" else sys.stderr
        if order["how"] == "closed":
            sys.stderr.close()
        return []

    def prints(self, order):
        print(order["text"])  # noqa: T201
        return []


def _no_delay(fd):
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            found.getpeername()
            return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    except OSError:
        return None


set_model(Odd())
