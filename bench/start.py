"""How long a pod takes to be ready from a warm disk, beside the bare import and load of the same model.

    python bench/start.py [--rounds 7] [--json]

Both sides are new processes of this Python, in turns, from their start: one imports `mlflow.pyfunc` and
calls `load_model`, the other is a pod until it answers 200 at /health/ready, with all that it does beyond
(it serves, answers its input example, proves its fast path, judges batching). `ratio` is the median of ours
by the median of the bare one. The first round of each warms the disk and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.rig import iris, machine
from trimtab.host.ports import free_port

POLL_EACH_S = 0.005
READY_WITHIN_S = 120.0
BARE = "import sys, mlflow.pyfunc; mlflow.pyfunc.load_model(sys.argv[1])"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}


def bare(model: str) -> float:
    """Seconds until a process has imported and loaded, and ended."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", BARE, model], env=os.environ | ENVIRONMENT, check=True)
    return time.perf_counter() - began_s


def pod(model: str) -> tuple[float, dict[str, float]]:
    """Seconds until a pod is ready, and when it had reached each stage. Raises TimeoutError."""
    with tempfile.TemporaryDirectory() as folder:
        stages, port = Path(folder, "stages.jsonl"), free_port("127.0.0.1")
        argv = [sys.executable, "-m", "trimtab.runtime.mlflow", "--model", model]
        argv += ["--bind", f"127.0.0.1:{port}", "--stages", str(stages)]
        at_s, began_s = time.time(), time.perf_counter()
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(argv, env=os.environ | ENVIRONMENT, cwd=folder, stdout=quiet, stderr=quiet)
        try:
            while not ready(port):
                if time.perf_counter() - began_s > READY_WITHIN_S or process.poll() is not None:
                    raise TimeoutError("the pod did not become ready")
                time.sleep(POLL_EACH_S)
            took_s = time.perf_counter() - began_s
            told = [json.loads(line) for line in stages.read_text().splitlines()]
            return took_s, {each["stage"]: each["at_s"] - at_s for each in told}
        finally:
            process.terminate()
            process.wait()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def run(rounds: int) -> dict[str, Any]:
    """The whole measurement."""
    with tempfile.TemporaryDirectory() as folder:
        model = iris(Path(folder, "model"))
        bare(model)
        pod(model)
        bares_s, pods = [], []
        for _ in range(rounds):
            bares_s.append(bare(model))
            pods.append(pod(model))
    ours_s = statistics.median(took_s for took_s, _ in pods)
    bare_s = statistics.median(bares_s)
    stages = {name: statistics.median(told[name] for _, told in pods) for name in pods[0][1]}
    return {
        "schema_version": 1,
        "bare_s": round(bare_s, 3),
        "ready_s": round(ours_s, 3),
        "ratio": round(ours_s / bare_s, 3),
        "stages_at_s": {name: round(at_s, 3) for name, at_s in stages.items()},
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
        return
    shown = ", ".join(f"{name} {at_s:.2f} s" for name, at_s in result["stages_at_s"].items())
    print(f"bare import and load: {result['bare_s']:.2f} s; ready: {result['ready_s']:.2f} s ({shown})")
    print(f"ratio: {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
