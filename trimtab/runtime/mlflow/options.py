"""What the command line says, and the bounds it may say it in."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

QUEUE_PER_POD = 64  # Envoy holds the queue; this one only takes what direct callers send beyond it
THREADS_MAX = 1024


@dataclass(frozen=True)
class Options:
    """How one pod is to run. `threads` predict at once, `queue` more may wait."""

    model_folder: Path
    bind: str  # HOST:PORT
    stages_path: Path
    threads: int = 1
    queue: int = QUEUE_PER_POD
    called: tuple[str, ...] = ()  # what callers may name the model; none: anything


def parse(arguments: list[str]) -> Options:
    """Read the command line; ends the process with status 2 and the usage if it is off."""
    parser = argparse.ArgumentParser(prog="trimtab.runtime.mlflow", description="Serve one MLflow model.")
    parser.add_argument("--model", type=_folder, required=True, help="the model's folder (with MLmodel)")
    parser.add_argument("--bind", type=_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--stages", type=Path, required=True, help="file to append reached stages to")
    parser.add_argument("--threads", type=_count(1), default=1, help="predictions at once (1)")
    parser.add_argument("--queue", type=_count(0), default=QUEUE_PER_POD, help="requests that may wait (64)")
    parser.add_argument("--called", nargs="*", default=[], metavar="NAME", help="what callers name the model")
    found = parser.parse_args(arguments)
    called = tuple(found.called)
    return Options(found.model, found.bind, found.stages, found.threads, found.queue, called)


def _folder(text: str) -> Path:
    path = Path(text)
    if not (path / "MLmodel").is_file():
        raise argparse.ArgumentTypeError(f"{text} holds no MLflow model (no file MLmodel)")
    return path


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return text


def _count(smallest: int) -> Callable[[str], int]:
    def parsed(text: str) -> int:
        if not text.isdigit() or not smallest <= int(text) <= THREADS_MAX:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {smallest} to {THREADS_MAX}")
        return int(text)

    return parsed
