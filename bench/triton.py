"""What Envoy costs in front of Triton: the same requests through the platform and straight to its pod.

    PATH="$PATH:$HOME/triton/bin" python bench/triton.py [--seconds 1] [--rounds 20] [--connections 32]
                                                         [--work-ms 5] [--batch 4] [--json]

Both in short turns, which are compared pair by pair: on a machine with other work on it seconds differ by
more than what is looked for, and neighbours differ least. On a platform of its own with one pod of a
Python-backend model that waits `--work-ms` for each batch of up to `--batch` requests, as a model does that
computes elsewhere: unless told otherwise it bears 800 requests a second, and always has more to do. Where a
batch holds all connections, each answer waits for the slowest request of a round, and what Envoy adds to
one is added to all; with 0 ms Triton, Envoy and the load generator share the cores. Needs a tritonserver on
the PATH, and h2load (package nghttp2-client).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil

from bench.rig import Platform, machine, platform, wait_for

CORES = 64  # asked for: a pod then begins with a limit far above the connections, so that none is held back
MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({work_s})
        found = [pb.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        return [pb.InferenceResponse([pb.Tensor("y", (2 * x).astype(np.float32))]) for x in found]
"""
CONFIG = """
backend: "python"
max_batch_size: {batch}
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }]
dynamic_batching { }
"""
REST_PATH = "/v2/models/double/infer"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
RESULT = re.compile(r"finished in .*?, (?P<rate>[\d.]+) req/s")
FAILED = re.compile(r"(?P<failed>\d+) failed, (?P<errored>\d+) errored, (?P<timeout>\d+) timeout")
MEAN = re.compile(r"time for request: +\S+ +\S+ +(?P<mean>[\d.]+)(?P<unit>us|ms|s)")
WARM_UP_S = 0.3  # of each turn: connections
OTHERS = " 2xx, 0 3xx, 0 4xx, 0 5xx"
IN_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class LoadError(Exception):
    """The load generator failed, or requests did."""


def save(folder: Path, work_s: float, batch: int) -> str:
    """A model repository; its path."""
    version = folder / "double" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL.format(work_s=work_s))
    (version.parent / "config.pbtxt").write_text(CONFIG.replace("{batch}", str(batch)))
    return str(folder)


def bodies(folder: Path) -> dict[str, Path]:
    """One request in each protocol's form, as files."""
    import numpy as np  # noqa: PLC0415
    import tritonclient.grpc.service_pb2 as pb  # noqa: PLC0415

    x = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)
    row = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": x.flatten().tolist()}
    rest = json.dumps({"inputs": [row]}).encode()
    message = pb.ModelInferRequest(model_name="double", raw_input_contents=[x.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    packed = message.SerializeToString()
    made = {"http": rest, "grpc": b"\0" + len(packed).to_bytes(4, "big") + packed}
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in made}


def load(protocol: str, address: str, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and their mean time, closed loop. Raises LoadError if one of them failed."""
    path = GRPC_PATH if protocol == "grpc" else REST_PATH
    command = ["h2load", "-D", f"{seconds:g}", "--warm-up-time", f"{1000 * WARM_UP_S:.0f}ms"]
    command += ["-c", str(connections), "-d", str(body)]
    command += ["-H", "x-trimtab-endpoint: double", f"http://{address}{path}"]
    if protocol == "grpc":
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    else:
        command += ["--h1", "-H", "content-type: application/json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 3 * seconds, check=False)
    rate, failed, mean = (pattern.search(done.stdout) for pattern in (RESULT, FAILED, MEAN))
    whole = failed is not None and not any(map(int, failed.groups())) and OTHERS in done.stdout
    if not (rate and mean and whole):
        raise LoadError(f"{protocol} {address}: {done.stdout}{done.stderr}")
    return {"per_s": float(rate["rate"]), "mean_s": float(mean["mean"]) * IN_SECONDS[mean["unit"]]}


def addresses(trimtab: Platform) -> dict[str, dict[str, str]]:
    """Where each protocol is asked, straight and through Envoy."""
    (pod,) = trimtab.pods("double")
    record = json.loads((trimtab.home / "pods" / pod["id"] / "pod.json").read_text())
    straight = {"http": pod["address"], "grpc": f"{record['host']}:{record['grpc_port']}"}
    return {name: {"straight": straight[name], "through_envoy": trimtab.listen} for name in ("http", "grpc")}


def measure(
    targets: dict[str, str],
    protocol: str,
    body: Path,
    connections: int,
    seconds: float,
    rounds: int,
    envoy: psutil.Process,
) -> dict[str, Any]:
    """Both sides in turns, which goes first alternating; `ratio` is the median of the rounds' ratios.

    `ratio_quartiles` are those below and above it.
    `envoy_cpu_s` is what one request costs Envoy: unlike the ratio it hardly depends on who else is at work.
    """
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
    began_s = sum(envoy.cpu_times()[:2])
    for count in range(rounds):
        for name in sorted(targets, reverse=bool(count % 2)):
            seen[name].append(load(protocol, targets[name], body, connections, seconds))
    ratios = [
        through["per_s"] / straight["per_s"]
        for through, straight in zip(seen["through_envoy"], seen["straight"], strict=True)
    ]
    sides = {
        name: {key: round(statistics.median(one[key] for one in found), 6) for key in ("per_s", "mean_s")}
        for name, found in seen.items()
    }
    used_s = sum(envoy.cpu_times()[:2]) - began_s
    per_request_s = round(
        used_s / sum(one["per_s"] * (WARM_UP_S + seconds) for one in seen["through_envoy"]), 6
    )
    low, middle, high = (round(each, 3) for each in statistics.quantiles(ratios, n=4))
    told = {"ratio": middle, "ratio_quartiles": [low, high], "ratios": [round(r, 3) for r in ratios]}
    return {**sides, **told, "envoy_cpu_s": per_request_s}


def run(work_s: float, batch: int, connections: int, seconds: float, rounds: int) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        path = save(Path(folder, "repository"), work_s, batch)
        settings = ["--set", "max_pods=1", "--set", f"resources.cpu={CORES}", "--concurrency", "1..1000"]
        trimtab("deploy", path, "--name", "double", *settings)
        wait_for("pod", lambda: trimtab.pods("double"), 60)
        body, found = bodies(Path(folder)), {}
        envoy = psutil.Process(trimtab.control_plane()["envoys"][0]["process_id"])
        for protocol, targets in addresses(trimtab).items():
            for target in targets.values():  # connections, and each protocol's part of the limit
                load(protocol, target, body[protocol], connections, max(seconds, 3.0))
            found[protocol] = measure(targets, protocol, body[protocol], connections, seconds, rounds, envoy)
    settings_told = {
        "work_s": work_s,
        "batch": batch,
        "connections": connections,
        "rounds": rounds,
        "seconds": seconds,
    }
    return {"schema_version": 1, **settings_told, **found, **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each side")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--work-ms", type=float, default=5.0, help="that the model waits for each batch")
    parser.add_argument("--batch", type=int, default=4, help="requests that it takes at a time")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    result = run(asked.work_ms / 1000, asked.batch, asked.connections, asked.seconds, asked.rounds)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{'':22}{'requests/s':>12}{'mean ms':>10}")
    for protocol in ("http", "grpc"):
        for side in ("straight", "through_envoy"):
            told = result[protocol][side]
            name = f"{protocol} {side.replace('_', ' ')}"
            print(f"{name:22}{told['per_s']:12.0f}{1000 * told['mean_s']:10.2f}")
        cost = f"{1e6 * result[protocol]['envoy_cpu_s']:.0f} µs of a core for a request"
        low, high = result[protocol]["ratio_quartiles"]
        ratio = f"{result[protocol]['ratio']:.3f} of straight (half of the turns {low:.3f} to {high:.3f})"
        print(f"{protocol} through Envoy: {ratio}, {cost}")
    print(f"{result['connections']} connections, {result['cores']} cores, shared with the load generator")


if __name__ == "__main__":
    main()
