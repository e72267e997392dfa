"""Libraries that start a thread per core of the machine and ask no variable how many are the pod's."""

from __future__ import annotations

import os
from pathlib import Path

THREADS = "OMP_NUM_THREADS"  # the pod's cores, as the others are told


def limit(folder: Path) -> None:
    """Before the model in `folder` is loaded: ONNX Runtime gets the pod's threads, unless told otherwise.

    Raises whatever reading the model's metadata or importing ONNX Runtime does.
    """
    from mlflow.models import Model  # noqa: PLC0415  here, because it takes seconds

    wanted = os.environ.get(THREADS, "")
    if wanted.isdigit() and "onnx" in Model.load(str(folder)).flavors:
        _limit_onnx_runtime(int(wanted))


def _limit_onnx_runtime(threads: int) -> None:
    import onnxruntime  # noqa: PLC0415  only some models need it, and their environment has it

    class Limited(onnxruntime.SessionOptions):  # type: ignore[misc]
        """MLflow makes one for each model, and writes what the model says over it."""

        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = threads

    onnxruntime.SessionOptions = Limited
