"""The process that serves: the event loop in a thread of its own, the model's start in the main thread."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, ClassVar

import uvloop
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from trimtab.runtime.mlflow.failure import ModelError, said
from trimtab.runtime.mlflow.http import PodProtocol
from trimtab.runtime.mlflow.log import report, say
from trimtab.runtime.mlflow.pod import Pod

BOOT_FAILED = 3  # gunicorn's own status for a worker that could not start
GRACE_S = 30  # from SIGTERM to SIGKILL: the fleet's, and the master's towards the worker
FINISH_S = 25  # of that, for requests; then come the last spans (spans.CLOSE_WITHIN_S), and the end


class PodWorker(UvicornWorker):  # type: ignore[misc]
    """Gunicorn's worker. While the model loads the event loop answers already: live, but not ready."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": PodProtocol,
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_graceful_shutdown": FINISH_S,
    }

    def run(self) -> None:
        """Serve until told to stop. A signal during the start ends the process: nothing is in flight."""
        pod: Pod = self.wsgi
        self.config.app = pod.service
        server = _Server(self.config, parent=self.ppid)
        serving = threading.Thread(target=self._serve_http, args=(server,), name="http")
        serving.start()
        try:
            pod.prepare()
        except Exception as error:  # noqa: BLE001  anything else would leave a pod that is live for ever
            server.stop()
            serving.join()
            if not isinstance(error, ModelError):
                report(error)
            say(f"ModelError: {error.message if isinstance(error, ModelError) else said(error)}")
            sys.exit(BOOT_FAILED)
        _on_signals(server)
        pod.open()
        serving.join()
        self._leave(pod)

    def _serve_http(self, server: _Server) -> None:
        uvloop.run(server.serve(sockets=self.sockets))

    def _leave(self, pod: Pod) -> None:
        """End the process, for certain: if a prediction hangs, a dead master would not kill us."""
        pod.close()
        if pod.busy or os.getppid() != self.ppid:
            with contextlib.suppress(Exception):  # a model may have closed it
                sys.stdout.flush()
            os._exit(0)


class _Server(Server):
    """Uvicorn's server, which also ends when the master is gone: an orphan would hold port and memory."""

    def __init__(self, config: Config, parent: int) -> None:
        super().__init__(config)
        self._parent = parent

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or os.getppid() != self._parent

    def stop(self, *, at_once: bool = False) -> None:
        """Take no more connections and finish what is in flight, or drop it."""
        self.should_exit = True
        self.force_exit = at_once


def _on_signals(server: _Server) -> None:
    def gently(_number: int, _frame: FrameType | None) -> None:
        server.stop()

    def at_once(_number: int, _frame: FrameType | None) -> None:
        server.stop(at_once=True)

    signal.signal(signal.SIGTERM, gently)
    signal.signal(signal.SIGINT, at_once)
    signal.signal(signal.SIGQUIT, at_once)  # gunicorn's master sends it when interrupted
