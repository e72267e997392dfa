"""The MLflow runtime beside other servers of the same model: throughput and latency, in turns.

    python bench/runtimes.py [--case iris-dataframe-split] [--connections 64] [--peers mlflow,fastapi]

Each peer is installed once into an environment of its own below .venv/bench, with the versions of
scikit-learn and NumPy that are used here. Ours is started once; each peer is started, asked in turns with
ours by `wrk` (one thread) for several rounds, and ended before the next: some keep a core busy while nobody
asks them, and every one would be measured with all the others on it. One worker each; the median round
counts. `ratio_to` is ours divided by theirs, of the rounds that they took turns in: above 1 is better for
throughput, below 1 for latencies and for `cpu`, the server's CPU time for a request. That one hardly depends
on who else uses the machine; throughput does, and more for a server of one process than for one of several.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pickle
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.footprint import cpu_seconds
from bench.peers.catalog import PEERS, Ask, Case, Peer, Start, in_json, open_inference
from bench.rig import machine
from trimtab.host.ports import free_port

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv" / "bench"
READY_S = 240.0  # on a machine that is busy
SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ROW = [5.1, 3.5, 1.4, 0.2]
FLAVOURS, OVERRIDES = (ROOT / "tests" / "flavours" / name for name in ("flavours.txt", "overrides.txt"))
TENSOR_WIDTH = 1000
TENSOR_ROWS = {"tensor-1mb": 131, "tensor-json": 50}  # each a body of 1 MB


class CannotMeasure(Exception):
    """What stands in the way, and what to do."""


# --- cases ------------------------------------------------------------------------------------------------


def iris_case(name: str, packages: tuple[str, ...] = ()) -> Case:
    columns = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    return Case(name, {"dataframe_split": {"columns": columns, "data": [ROW]}}, [ROW], packages)


def trees_case() -> Case:
    columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    return Case("lightgbm", {"dataframe_split": {"columns": columns, "data": [ROW]}}, [ROW], ("lightgbm",))


def tensor_case(name: str) -> Case:
    import numpy as np  # noqa: PLC0415

    rows = np.random.default_rng(1).random((TENSOR_ROWS[name], TENSOR_WIDTH)).tolist()
    return Case(name, {"inputs": rows}, rows, in_bytes=name == "tensor-1mb")


def network_case() -> Case:
    torch = next(line for line in FLAVOURS.read_text().splitlines() if line.startswith("torch=="))
    return Case("torch", {"inputs": [ROW]}, [ROW], (torch,), alone=False)


def overlay(case: Case) -> Path | None:
    """The folder with what a case needs beyond scikit-learn, for all sides. Raises CannotMeasure."""
    if not case.packages:
        return None
    folder = ENVIRONMENTS / f"with-{case.name}"
    if not (folder / ".bench").exists():
        shutil.rmtree(folder, ignore_errors=True)
        install = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet"]
        install += ["--no-deps"] if case.alone else ["--no-cache", "--override", str(OVERRIDES)]
        run_uv([*install, "--target", str(folder), *case.packages], case.name)
        (folder / ".bench").touch()
    return folder


def save_boosted(case: Case, folder: Path) -> None:
    """Boosted trees on iris, the same way."""
    sys.path.append(str(overlay(case)))
    import mlflow.xgboost  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415
    from xgboost import XGBClassifier  # noqa: PLC0415

    rows, species = load_iris(return_X_y=True, as_frame=True)
    model = XGBClassifier(n_estimators=100, n_jobs=1).fit(rows, species)
    mlflow.xgboost.save_model(
        model,
        folder / "model",
        signature=infer_signature(rows, model.predict(rows)),
        input_example=rows[:2],
        pip_requirements=["xgboost"],
    )
    nameless = XGBClassifier(n_estimators=100, n_jobs=1).fit(rows.to_numpy(), species)
    (folder / "estimator.pickle").write_bytes(pickle.dumps(nameless))


def save_trees(case: Case, folder: Path) -> None:
    """LightGBM's, which takes no spaces in names."""
    sys.path.append(str(overlay(case)))
    import mlflow.lightgbm  # noqa: PLC0415
    from lightgbm import LGBMClassifier  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415

    rows, species = load_iris(return_X_y=True, as_frame=True)
    rows.columns = case.body["dataframe_split"]["columns"]
    model = LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1).fit(rows, species)
    mlflow.lightgbm.save_model(
        model,
        folder / "model",
        signature=infer_signature(rows, model.predict(rows)),
        input_example=rows[:2],
        pip_requirements=["lightgbm"],
    )
    nameless = LGBMClassifier(n_estimators=100, n_jobs=1, verbose=-1).fit(rows.to_numpy(), species)
    (folder / "estimator.pickle").write_bytes(pickle.dumps(nameless))


def save_network(case: Case, folder: Path) -> None:
    """A small network of PyTorch's, on iris-like rows; weights do not matter."""
    sys.path.append(str(overlay(case)))
    import mlflow.pytorch  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    torch.manual_seed(0)
    layers = (torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU())
    network = torch.nn.Sequential(*layers, torch.nn.Linear(64, 3)).eval()
    rows = np.array([ROW, ROW], dtype=np.float32)
    mlflow.pytorch.save_model(
        network,
        folder / "model",
        signature=infer_signature(rows, np.zeros((1, 3), np.float32)),
        input_example=rows,
        pip_requirements=["torch"],
        serialization_format="pickle",
    )
    torch.jit.script(network).save(str(folder / "network.pt"))


def save_estimator(case: Case, folder: Path) -> None:
    """Train on iris, or on noise of the tensor's width; as an MLflow model and as a pickle."""
    import mlflow.sklearn  # noqa: PLC0415 -- takes seconds
    import numpy as np  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: PLC0415

    if case.name in TENSOR_ROWS:
        rows = np.random.default_rng(2).random((2 * TENSOR_WIDTH, TENSOR_WIDTH))
        answers = rows.sum(axis=1)
        estimator: Any = LinearRegression()
    else:
        rows, answers = load_iris(return_X_y=True, as_frame=True)
        forest = case.name == "forest"
        estimator = (
            RandomForestClassifier(100, random_state=0) if forest else LogisticRegression(max_iter=1000)
        )
    estimator.fit(rows, answers)
    mlflow.sklearn.save_model(
        estimator,
        folder / "model",
        signature=infer_signature(rows, estimator.predict(rows)),
        input_example=rows[:2],
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",  # skops does not trust a forest
    )
    nameless = estimator.fit(np.asarray(rows), answers)  # arrays have no names to complain about
    (folder / "estimator.pickle").write_bytes(pickle.dumps(nameless))


SLEEPER = """
import time
import mlflow.pyfunc
import numpy as np
from mlflow.models import set_model


class Sleeper(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(0.02)
        return np.zeros(len(model_input), dtype=np.int64)


set_model(Sleeper())
"""


def save_sleeper(_: Case, folder: Path) -> None:
    import mlflow.pyfunc  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415
    from sklearn.datasets import load_iris  # noqa: PLC0415

    script = folder / "sleeper.py"
    script.write_text(SLEEPER)
    rows, species = load_iris(return_X_y=True, as_frame=True)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(script),
        signature=infer_signature(rows, species),
        input_example=rows[:2],
        pip_requirements=["mlflow"],
    )


CASES: dict[str, tuple[Callable[[], Case], Callable[[Case, Path], None]]] = {
    "iris-dataframe-split": (lambda: iris_case("iris-dataframe-split"), save_estimator),
    "forest": (lambda: iris_case("forest"), save_estimator),
    "xgboost": (lambda: iris_case("xgboost", ("xgboost-cpu",)), save_boosted),
    "lightgbm": (trees_case, save_trees),
    "torch": (network_case, save_network),
    "sleep": (lambda: iris_case("sleep"), save_sleeper),
    "tensor-1mb": (lambda: tensor_case("tensor-1mb"), save_estimator),
    "tensor-json": (lambda: tensor_case("tensor-json"), save_estimator),
}


# --- servers ----------------------------------------------------------------------------------------------


def ours(case: Case) -> Peer:
    """This runtime, as a fleet starts it; from this checkout."""

    def command(start: Start) -> list[str]:
        arguments = ["--model", str(start.folder / "model"), "--bind", f"127.0.0.1:{start.port}"]
        arguments += ["--stages", str(start.folder / "stages"), "--threads", "1000"]
        return [str(start.python), "-m", "trimtab.runtime.mlflow", *arguments]

    safe = {"PYTHONSAFEPATH": "1"}
    ask = open_inference(case, "model", in_bytes=True) if case.in_bytes else in_json(case.body)
    return Peer("ours", (), command, asks=lambda _: ask, environment=lambda _: safe)


def python_for(peer: Peer) -> Path:
    """The Python of a peer's environment, made if need be. Raises CannotMeasure."""
    folder = ENVIRONMENTS / peer.name
    python = folder / "bin" / "python"
    wanted = [name.format(mlflow=importlib.metadata.version("mlflow")) for name in peer.packages]
    stamp = folder / ".bench"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return python
    uv = [str(Path(sys.executable).parent / "uv")]
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in ("scikit-learn", "numpy")]
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {peer.name} into {folder}", file=sys.stderr)
    run_uv([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], peer.name)
    install = [*uv, "pip", "install", "--quiet", "--python", str(python), *wanted]
    try:
        run_uv([*install, *pins], peer.name)
    except CannotMeasure:  # it wants older ones than ours, which it can then hardly unpickle from
        run_uv([*install, pins[0]], peer.name)
    stamp.write_text("\n".join(wanted))
    return python


def run_uv(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-8:]
        raise CannotMeasure(f"{what} cannot be installed here: " + "\n  ".join(last))


@dataclass(frozen=True)
class Side:
    """A server that runs."""

    peer: Peer
    address: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        used_s = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.Error):
                used_s += cpu_seconds(process)
        return used_s


@contextmanager
def serving(peer: Peer, start: Start) -> Iterator[Side]:
    """A server that has given the right answer. Raises CannotMeasure."""
    peer.prepare(start)
    threads = dict.fromkeys(SINGLE_THREADED, "1")
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment = {**inherited, **threads, "MLFLOW_DISABLE_TELEMETRY": "true", **peer.environment(start)}
    extra = overlay(start.case)
    paths = [environment.get("PYTHONPATH", ""), str(extra) if extra else ""]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    log = start.folder / f"{peer.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            peer.command(start),
            env=environment,
            cwd=start.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{start.port}"
        wait_for_answer(peer.name, address, peer.asks(start.case), process, log)
        yield Side(peer, address, psutil.Process(process.pid))
    finally:
        end(process)


def wait_for_answer(name: str, address: str, ask: Ask, process: subprocess.Popen[bytes], log: Path) -> None:
    url = address + ask.path
    deadline_s = time.monotonic() + READY_S
    said = "nothing"
    while time.monotonic() < deadline_s:
        try:
            request = urllib.request.Request(url, ask.body, ask.headers)
            with urllib.request.urlopen(request, timeout=10) as reply:
                if reply.status == 200:
                    return
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read()[:500]!r}"
        except OSError as error:
            said = str(error)
        if process.poll() is not None:
            break
        time.sleep(0.3)
    tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
    raise CannotMeasure(f"{name} does not answer at {url} (it said {said}); its log ends:\n  {tail}")


def end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue


# --- measuring --------------------------------------------------------------------------------------------

WRK = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*all")
file:close()
{headers}
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
      + summary.errors.timeout))
end
"""


def wrk(side: Side, case: Case, folder: Path, connections: int, seconds: float) -> dict[str, float]:
    """One run. Raises CannotMeasure if an answer was no answer."""
    name, ask = side.peer.name, side.peer.asks(case)
    body, script = folder / f"{name}.body", folder / f"{name}.lua"
    body.write_bytes(ask.body)
    headers = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in ask.headers.items())
    script.write_text(WRK.format(body=body, headers=headers))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        side.address + ask.path,
    ]
    used_s = side.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used_s = side.cpu_seconds() - used_s
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise CannotMeasure(f"wrk failed: {done.stdout} {done.stderr}")
    requests, duration_us, p50_us, p99_us, errors = map(int, found.groups())
    if errors or not requests:
        raise CannotMeasure(f"{name}: {errors} of {requests} requests failed")
    found_s = {"p50_s": p50_us / 1e6, "p99_s": p99_us / 1e6, "cpu_s": used_s / requests}
    return {"throughput": requests / duration_us * 1e6, **found_s}


Runs = list[dict[str, float]]


def measure(
    peers: list[Peer], case: Case, folder: Path, connections: int, seconds: float, rounds: int
) -> dict[str, tuple[Runs, Runs]]:
    """By peer, the rounds of ours and of its own that they took in turns."""
    own, found = ours(case), {}
    with serving(own, started(own, case, folder)) as mine:
        for peer in peers:
            with serving(peer, started(peer, case, folder)) as theirs:
                sides = (mine, theirs)
                for side in sides:
                    wrk(side, case, folder, connections, min(seconds, 2.0))  # warm
                taken = [
                    [wrk(side, case, folder, connections, seconds) for side in sides] for _ in range(rounds)
                ]
            found[peer.name] = [run for run, _ in taken], [run for _, run in taken]
            rates = [f"{middle(runs)['throughput']:.0f}" for runs in found[peer.name]]
            print(f"ours {rates[0]} requests/s, {peer.name} {rates[1]}", file=sys.stderr, flush=True)
    return found


def started(peer: Peer, case: Case, folder: Path) -> Start:
    python = Path(sys.executable) if peer.name == "ours" else python_for(peer)
    return Start(case, folder, free_port("127.0.0.1"), python)


def middle(runs: Runs) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 6) for key in runs[0]}


def compare(case: str, found: dict[str, tuple[Runs, Runs]]) -> dict[str, Any]:
    """The result as it is printed with --json; `ours` is the median of all rounds."""
    names = (("throughput", "throughput"), ("p50", "p50_s"), ("p99", "p99_s"), ("cpu", "cpu_s"))
    ratios = {
        name: {short: round(middle(mine)[key] / middle(theirs)[key], 3) for short, key in names}
        for name, (mine, theirs) in found.items()
    }
    return {
        "schema_version": 1,
        "case": case,
        "ours": middle([run for mine, _ in found.values() for run in mine]),
        "peers": {name: middle(theirs) for name, (_, theirs) in found.items()},
        "ratio_to": ratios,
    }


def chosen(names: str, case: str) -> list[Peer]:
    """The peers asked for that serve this case. Raises CannotMeasure if none does."""
    found = []
    for name in filter(None, names.split(",")):
        if name not in PEERS:
            raise CannotMeasure(f"no peer `{name}`; there are {', '.join(PEERS)}")
        peer = PEERS[name]
        if peer.cases is not None and case not in peer.cases:
            print(f"{name} does not serve `{case}`: left out", file=sys.stderr)
            continue
        found.append(peer)
    if not found:
        raise CannotMeasure(f"name a peer to compare with, of {', '.join(PEERS)}")
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    if shutil.which("wrk") is None:
        raise CannotMeasure("`wrk` sends the load and is not here: apt-get install wrk")
    make, save = CASES[arguments.case]
    case = make()
    peers = chosen(arguments.peers, arguments.case)
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        save(case, folder)
        how = (arguments.connections, arguments.seconds, arguments.rounds)
        found = measure(peers, case, folder, *how)
    settings = {
        "connections": arguments.connections,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
    }
    return {**compare(arguments.case, found), **settings, **machine()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), default="iris-dataframe-split")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--peers", default="mlflow,fastapi", help=f"of {','.join(PEERS)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        result = run(arguments)
    except CannotMeasure as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result) if arguments.json else table(result))
    return 0


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{result['case']}, {result['connections']} connections, {result['cores']} cores"]
    lines.append(f"{'':10}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}   ours is")
    for name, values in {"ours": result["ours"], **result["peers"]}.items():
        p50_ms, p99_ms = 1e3 * values["p50_s"], 1e3 * values["p99_s"]
        ratio = result["ratio_to"].get(name, {})
        ratios = ", ".join(f"{value:.2f} × {what}" for what, value in ratio.items())
        cpu_us = 1e6 * values["cpu_s"]
        lines.append(
            f"{name:10}{values['throughput']:12.0f}{p50_ms:9.2f}{p99_ms:9.2f}{cpu_us:9.0f}   {ratios}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
