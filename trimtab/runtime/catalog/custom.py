"""A user's own server, of any kind, that speaks what it says it speaks.

It runs in its own folder (the model's, read-only) and is told its ports by its environment, or by `{port}`
and `{grpc_port}` in its command. There is no shell in between.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from string import Template

from trimtab.core.errors import Problem
from trimtab.core.protocol import Protocol
from trimtab.core.spec import ModelSpec
from trimtab.runtime.catalog.base import Fit, Launch, PodMetrics, Runtime, cores_of, thread_limits

KEEP_ALIVE_S = 5.0  # of uvicorn and of Node.js: the shortest of the servers that people use

READY_PATHS = {
    Protocol.INVOCATIONS: "/ping",
    Protocol.OPEN_INFERENCE_REST: "/v2/health/ready",
    Protocol.OPENAI: "/health",
}
"""Where a server of each protocol says that it is ready, if the spec does not say otherwise."""


def _fits(_folder: Path) -> Fit:
    return Fit(True, "a server of your own can be given any folder (--command)")


def _missing(model: ModelSpec) -> Problem | None:
    if model.custom.image:
        hint = (
            "images run on Kubernetes (`trimtab --kube-context NAME deploy …`); here give --command instead, "
            "with what the image starts"
        )
        return Problem("custom.image", "this machine runs processes, not images", hint)
    program = model.custom.command[0] if model.custom.command else ""
    if not program:
        hint = "for example --command 'python3 server.py --port {port}'"
        return Problem("custom.command", "is empty: nothing says how the server starts", hint)
    if "/" not in program and shutil.which(program) is None:
        hint = "name a program of the PATH of `trimtab up`, or one in the folder as ./NAME"
        return Problem("custom.command", f"there is no program `{program}` here", hint)
    return None


def told_ports(launch: Launch) -> dict[str, str]:
    """What the server is told, by the name of each variable."""
    told = {"HOST": launch.host, "PORT": str(launch.port), "MODEL": str(launch.model_folder)}
    return told | ({"GRPC_PORT": str(launch.grpc_port)} if launch.grpc_port else {})


def _command(launch: Launch) -> tuple[str, ...]:
    """The command with `{port}`, `$PORT` and their like filled in; all else stays as it was written."""
    told = told_ports(launch)

    def filled(word: str) -> str:
        for name, value in told.items():
            word = word.replace(f"{{{name.lower()}}}", value)
        return Template(word).safe_substitute(told)

    return tuple(filled(word) for word in launch.model.custom.command)


def _environment(launch: Launch) -> dict[str, str]:
    return thread_limits(launch.model) | told_ports(launch) | {"PYTHONDONTWRITEBYTECODE": "1"}


def _adapted(runtime: Runtime, model: ModelSpec) -> Runtime:
    spoken = frozenset(Protocol(name) for name in model.custom.protocols)
    first = next((READY_PATHS[protocol] for protocol in READY_PATHS if protocol in spoken), "/")
    return replace(
        runtime,
        protocols=spoken,
        ready_path=model.custom.ready_path or first,
        grpc_port=Protocol.OPEN_INFERENCE_GRPC in spoken,
    )


CUSTOM = Runtime(
    name="custom",
    protocols=frozenset({Protocol.INVOCATIONS}),
    fits=_fits,
    missing=_missing,
    adapted=_adapted,
    command=_command,
    environment=_environment,
    ready_path=READY_PATHS[Protocol.INVOCATIONS],
    metrics_path="",
    metrics=PodMetrics(),
    first_concurrency=cores_of,
    typical_memory_bytes=100 << 20,
    runs_in_model_folder=True,
    keep_alive_s=KEEP_ALIVE_S,
)
