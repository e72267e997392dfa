"""The servers that the MLflow runtime is compared with: what each needs, how it starts, what it is asked.

Each is asked in its own fastest form of the same request, with one worker and its own batching where it
has any. A large tensor goes in bytes to those who take bytes: the binary extension of the Open Inference
Protocol.
"""

from __future__ import annotations

import json
import pickle
import struct
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """One model and one request for it."""

    name: str
    body: dict[str, Any]  # for servers that speak MLflow's protocol
    rows: list[list[float]]  # the same for those that do not
    packages: tuple[str, ...] = ()  # beyond scikit-learn
    alone: bool = True  # whether they need nothing beyond what is there
    in_bytes: bool = False  # whether the rows go as bytes to those who take them


@dataclass(frozen=True)
class Ask:
    """One request: what is sent, and where."""

    body: bytes
    path: str = "/invocations"
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True)
class Start:
    """What a peer is started with."""

    case: Case
    folder: Path  # `model` is the MLflow model, `estimator.pickle` what is in it
    port: int
    python: Path


@dataclass(frozen=True)
class Peer:
    """One server."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[Start], list[str]]
    asks: Callable[[Case], Ask] = lambda case: in_json({"inputs": case.rows})
    environment: Callable[[Start], dict[str, str]] = lambda _: {}
    cases: frozenset[str] | None = None  # None: all
    prepare: Callable[[Start], None] = lambda _: None


def in_json(value: Any) -> Ask:
    """To `/invocations`."""
    return Ask(json.dumps(value).encode())


def _script(name: str) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        arguments = [str(start.port), start.case.name, str(start.folder)]
        return [str(start.python), str(HERE / f"{name}_server.py"), *arguments]

    return command


def _mlflow(start: Start) -> list[str]:
    """As `mlflow models serve --env-manager local` runs it."""
    app = "mlflow.pyfunc.scoring_server.app:app"
    return [str(start.python), "-m", "uvicorn", app, "--port", str(start.port), "--workers", "1"]


def _mlserver(start: Start) -> list[str]:
    return [str(start.python.parent / "mlserver"), "start", str(start.folder / "mlserver")]


def _mlserver_files(start: Start) -> None:
    folder = start.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    server = {"host": "127.0.0.1", "http_port": start.port, "grpc_port": start.port + 1, "debug": False}
    server |= {"metrics_port": start.port + 2, "parallel_workers": 0, "use_structured_logging": False}
    (folder / "settings.json").write_text(json.dumps(server))
    import joblib  # noqa: PLC0415  # type: ignore[import-untyped]

    with (start.folder / "estimator.pickle").open("rb") as file:
        joblib.dump(pickle.load(file), folder / "model.joblib")
    model = {"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel", "max_batch_size": 64}
    model |= {"max_batch_time": 0.001, "parameters": {"uri": "./model.joblib", "version": "v1"}}
    (folder / "model-settings.json").write_text(json.dumps(model))


def open_inference(case: Case, model: str, *, in_bytes: bool) -> Ask:
    """The rows as one tensor of the Open Inference Protocol."""
    path = f"/v2/models/{model}/infer"
    told: dict[str, Any] = {
        "name": "rows",
        "shape": [len(case.rows), len(case.rows[0])],
        "datatype": "FP64",
    }
    flat = [value for row in case.rows for value in row]
    if not in_bytes:
        return Ask(json.dumps({"inputs": [{**told, "data": flat}]}).encode(), path)
    raw = struct.pack(f"<{len(flat)}d", *flat)
    told["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [told]}).encode()  # and the answer in JSON: it is short
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return Ask(head + raw, path, headers)


def _v2(case: Case) -> Ask:
    return open_inference(case, "iris", in_bytes=False)


def _code(start: Start) -> dict[str, str]:
    return {"BENCH_CASE": start.case.name, "BENCH_FOLDER": str(start.folder), "PYTHONPATH": str(HERE)}


def _libpython(_: Start) -> dict[str, str]:
    """Triton's Python backend must find the library of the interpreter that it was installed with."""
    return {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}


COMPUTING = frozenset({"iris-dataframe-split", "forest", "xgboost", "lightgbm", "tensor-1mb", "tensor-json"})
UVICORN = ("uvicorn", "uvloop", "httptools")

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "mlflow",
            ("mlflow=={mlflow}", *UVICORN),
            _mlflow,
            asks=lambda case: in_json(case.body),
            environment=lambda start: {"__pyfunc_model_path__": str(start.folder / "model")},
        ),
        Peer("fastapi", ("fastapi", *UVICORN), _script("fastapi"), asks=lambda case: in_json(case.body)),
        Peer(
            "mlserver",
            ("mlserver", "mlserver-sklearn"),
            _mlserver,
            asks=_v2,
            prepare=_mlserver_files,
            cases=COMPUTING,
        ),
        Peer("litserve", ("litserve", *UVICORN), _script("litserve")),
        Peer(
            "bentoml",
            ("bentoml", *UVICORN),
            lambda start: [
                *(str(start.python), "-m", "bentoml", "serve", "bentoml_server:Service"),
                *("--port", str(start.port), "--host", "127.0.0.1", "--working-dir", str(HERE)),
            ],
            environment=_code,
        ),
        Peer("ray", ("ray[serve]", *UVICORN), _script("ray")),
        Peer(
            "pytriton",
            ("nvidia-pytriton>=0.7",),
            _script("pytriton"),
            environment=_libpython,
            asks=lambda case: open_inference(case, "iris", in_bytes=case.in_bytes),
        ),
    )
}
