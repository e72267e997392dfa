"""The first process of a cluster's namespaces: prepares them, keeps the programs alive, forwards its ports.

Run by path, with the plan's file as its argument; imports nothing but the standard library. When it ends,
however it does, the kernel ends everything else in there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESTART_AFTER_S = 1.0
CHUNK_BYTES = 64 << 10
LOG_BYTES_MAX = 64 << 20  # of one program; then it begins anew
LOOK_AT_LOGS_EACH_S = 10.0


class Programs:
    """Each is started, and started again when it ends. Orphans of containers are reaped on the way."""

    def __init__(self, commands: dict[str, list[str]], logs: Path) -> None:
        self._commands = commands
        self._logs = logs
        self._running: dict[int, str] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for name in commands:
            self._start(name)

    def _start(self, name: str) -> None:
        if _is_held(self._logs, name):
            self._loop.call_later(RESTART_AFTER_S, self._start, name)
            return
        log = str(self._logs / f"{name}.log")
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, writing, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        command = self._commands[name]
        process_id = os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
        self._running[process_id] = name

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                process_id, status = os.waitpid(-1, os.WNOHANG)
                if process_id == 0:
                    return
                name = self._running.pop(process_id, None)
                if name is not None:
                    _say(f"{name} ended with status {os.waitstatus_to_exitcode(status)}; starting it again")
                    self._loop.call_later(RESTART_AFTER_S, self._start, name)


async def run(plan: dict[str, Any]) -> None:
    logs = Path(plan["logs"])
    programs = Programs(plan["programs"], logs)  # noqa: F841 - alive for as long as we are
    for forward in plan["forwards"]:
        await _forward(socket.socket(fileno=forward["listener"]), forward["port"])
    while True:
        await asyncio.sleep(LOOK_AT_LOGS_EACH_S)
        _bound(logs)


def hold_of(logs: Path, name: str) -> Path:
    """Of a program that is not to be started: the file says until when, in seconds since 1970."""
    return logs.parent / "held" / name


def _is_held(logs: Path, name: str) -> bool:
    try:
        return time.time() < float(hold_of(logs, name).read_text())
    except (OSError, ValueError):
        return False


def _bound(logs: Path) -> None:
    for log in logs.iterdir():
        if log.stat().st_size > LOG_BYTES_MAX:
            os.truncate(log, 0)


async def _forward(listener: socket.socket, port: int) -> None:
    """From `listener`, which is in the machine's own network, to `port` of ours."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        writer.close()

    await asyncio.start_server(serve, sock=listener)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either end has gone; then the other direction ends too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(plan_file: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    os.environ["PATH"] = plan["path"]
    for command in plan["prepare"]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    asyncio.run(run(plan))


if __name__ == "__main__":
    main(sys.argv[1])
