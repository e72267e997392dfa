"""The process that the fleet started: binds the port, forks the one worker, and ends when that ends."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S, START_TIMEOUT_MAX_S
from trimtab.runtime.catalog.base import KEEP_ALIVE_S
from trimtab.runtime.mlflow.options import Options
from trimtab.runtime.mlflow.pod import Pod
from trimtab.runtime.mlflow.worker import BOOT_FAILED, GRACE_S, PodWorker


def serve(options: Options) -> None:
    """Serve until SIGTERM. Ends the process: 0 when told to stop, otherwise the worker's status, never 0."""
    Master(PodApplication(options)).run()


def settings(bind: str) -> dict[str, Any]:
    """Gunicorn's settings; whatever the environment or a file says is not looked at."""
    return {
        "bind": bind,
        "workers": 1,
        "worker_class": f"{PodWorker.__module__}.{PodWorker.__qualname__}",  # older ones want a name
        "keepalive": int(KEEP_ALIVE_S),
        "graceful_timeout": GRACE_S,
        # The heartbeat comes from the event loop, which a model that holds the interpreter's lock
        # starves. No request and no start may be longer than these; a hang is for the fleet to see.
        "timeout": int(max(REQUEST_TIMEOUT_MAX_S, START_TIMEOUT_MAX_S)) + GRACE_S,
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": "trimtab-mlflow",
    }


class PodApplication(BaseApplication):  # type: ignore[misc]
    """What gunicorn runs: its settings, and the pod that the worker makes after the fork."""

    def __init__(self, options: Options) -> None:
        self._options = options
        super().__init__(prog="trimtab.runtime.mlflow")

    def load_config(self) -> None:
        """Only our settings, of those that this gunicorn has: the model's environment says which it is."""
        for name, value in settings(self._options.bind).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Pod:
        """Called in the worker."""
        return Pod(self._options)


class Master(Arbiter):  # type: ignore[misc]
    """Gunicorn's arbiter, which would respawn a dead worker for ever and look healthy meanwhile."""

    ended: int | None = None  # the worker's wait status

    def reap_workers(self) -> None:
        """Note how the worker ended, which gunicorn only logs."""
        for pid, worker in list(self.WORKERS.items()):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                self.ended = status
                del self.WORKERS[pid]
                worker.tmp.close()
        super().reap_workers()  # as the first process of a container we inherit others' orphans

    def spawn_worker(self) -> Any:
        """Fork the worker; never a second one."""
        if self.ended is None:
            return super().spawn_worker()
        status = os.waitstatus_to_exitcode(self.ended)
        raise HaltServer(_ending(status), status if status > 0 else 1)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """Stop, and end the process; `reason` becomes its last word."""
        if reason and exit_status != BOOT_FAILED:  # then the worker has said it in better words
            print(f"WorkerError: {reason}", file=sys.stderr, flush=True)  # noqa: T201
        super().halt(exit_status=exit_status)


def _ending(status: int) -> str:
    if status >= 0:
        return f"the worker process ended by itself with exit status {status}"
    name = signal.Signals(-status).name
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker process was killed by {name}{memory}"
