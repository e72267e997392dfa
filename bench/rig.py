"""A platform of its own to measure on: started in a temporary home, taken down with all it started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from trimtab.host.ports import free_port

TRIMTAB = Path(sys.executable).parent / "trimtab"
ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}
COMMAND_TIMEOUT_S = 600.0  # longer than a model may take to start

Seen = TypeVar("Seen")


class CommandError(Exception):
    """A `trimtab` command ended with another status than 0; the text is what it said."""


class Platform:
    """One home and the address that its models are called at, used by the `trimtab` command alone."""

    def __init__(self, home: Path, listen: str) -> None:
        self.home = home
        self.listen = listen

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """Run `trimtab ARGUMENTS --json`; what it printed. Its progress goes to our stderr.

        Raises CommandError.
        """
        command = [str(TRIMTAB), *arguments, "--home", str(self.home), "--json"]
        result = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        if result.returncode != 0:
            words = result.stdout.strip() or "see above"
            raise CommandError(f"trimtab {arguments[0]} ended with {result.returncode}: {words}")
        answer: dict[str, Any] = json.loads(result.stdout) if result.stdout.strip() else {}
        return answer

    def endpoint(self, name: str) -> dict[str, Any]:
        """The endpoint as `trimtab status NAME --json` gives it."""
        found: dict[str, Any] = self("status", name)["endpoint"]
        return found

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The endpoint's pods that are ready, oldest first."""
        revisions = self.endpoint(name)["status"].get("revisions", [])
        pods = [pod for revision in revisions for pod in revision.get("pods", []) if pod["phase"] == "ready"]
        return sorted(pods, key=lambda pod: float(pod["ready_at_s"]))

    def control_plane(self) -> dict[str, Any]:
        """The platform's own part of `trimtab status --json`."""
        found: dict[str, Any] = self("status")["platform"]
        return found

    def url(self, name: str) -> str:
        return f"http://{self.listen}/serving-endpoints/{name}/invocations"


@contextmanager
def platform() -> Iterator[Platform]:
    """A running platform in a temporary home on a free port; down and gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="trimtab-bench-"))
    trimtab = Platform(home, f"127.0.0.1:{free_port('127.0.0.1')}")
    try:
        trimtab("up", "--listen", trimtab.listen, "--detach")
        yield trimtab
    finally:
        trimtab("down", "--purge")
        shutil.rmtree(home, ignore_errors=True)


def iris(folder: Path) -> str:
    """Train a classifier on the iris data and save it as an MLflow model; its path, which can be deployed."""
    import mlflow.sklearn  # noqa: PLC0415 -- takes seconds; only needed here
    import sklearn  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    rows, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(rows, labels)
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(rows, model.predict(rows)),
        input_example=rows[:1],
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],  # else MLflow finds out by loading it
    )
    return str(folder)


def wait_for(what: str, look: Callable[[], Seen | None], timeout_s: float, every_s: float = 0.2) -> Seen:
    """What `look` gives once it gives something. Raises TimeoutError naming `what`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no {what} within {timeout_s:.0f} s")
        time.sleep(every_s)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {"cores": os.cpu_count(), "python": sys.version.split()[0], "system": os.uname().sysname}
