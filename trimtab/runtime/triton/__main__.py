"""Become a tritonserver: `python -m trimtab.runtime.triton --repository FOLDER …`.

Runs in the pod's own folder. What stands in for the server is gone once it runs: the process that the fleet
started is the server itself, and gets its signals.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from trimtab.runtime.triton.server import REMEDY, Ports, ServerUnusableError, find_server, lay_out, options
from trimtab.runtime.triton.shared_memory import prefix_of, sweep


def main(arguments: list[str]) -> int:  # noqa: RET503 -- the last line does not return
    """Returns only if there is no server to become."""
    asked, further = _parsed(arguments)
    server = find_server()
    if server is None:
        print(f"Error: there is no tritonserver here: {REMEDY}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        laid = lay_out(server, Path.cwd() / "backends", os.environ)
    except (ServerUnusableError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    sweep()
    command = [str(server.program), *_options(asked, laid.backends), *further]
    os.execve(command[0], command, laid.environment)  # noqa: S606 -- no shell is wanted


def _options(asked: argparse.Namespace, backends: Path) -> list[str]:
    return [
        *options(asked.repository, asked.host, Ports(asked.http_port, asked.grpc_port, asked.metrics_port)),
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix_of(os.getpid())}",
    ]


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Ours, and those that are the server's."""
    parser = argparse.ArgumentParser(
        prog="trimtab.runtime.triton", description="Serve a model repository.", allow_abbrev=False
    )
    parser.add_argument("--repository", type=Path, required=True, help="folder with a folder per model")
    parser.add_argument("--host", required=True)
    for port in ("--http-port", "--grpc-port", "--metrics-port"):
        parser.add_argument(port, type=int, required=True)
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
