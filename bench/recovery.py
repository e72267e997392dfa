"""How soon what was killed is back: Envoy until it answers again, a pod until its replacement is ready.

    python bench/recovery.py [--times 3] [--json]

Starts a platform of its own. A pod's replacement is compared with one model load: the time that the
killed pod itself took to become ready.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from bench.rig import ROW, Platform, iris, machine, platform, wait_for

TIMEOUT_S = 60.0


def answers(url: str) -> bool:
    """Whether a prediction is answered."""
    request = Request(url, json.dumps(ROW).encode(), {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def envoy_back_s(trimtab: Platform) -> float:
    """Seconds from `kill -9` of Envoy to the next prediction."""
    pid = int(trimtab.control_plane()["envoys"][0]["process_id"])
    begin_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for("answer", lambda: answers(trimtab.url("iris")) or None, TIMEOUT_S, every_s=0.01)
    return time.monotonic() - begin_s


def pod_back_s(trimtab: Platform) -> tuple[float, float]:
    """Seconds from `kill -9` of a pod until its replacement was ready, and those of the pod's own start."""
    pods = trimtab.pods("iris")
    victim, known = pods[0], {pod["id"] for pod in pods}
    killed_at_s = time.time()
    os.kill(victim["process_id"], signal.SIGKILL)

    def replacement() -> dict[str, Any] | None:
        return next((pod for pod in trimtab.pods("iris") if pod["id"] not in known), None)

    new = wait_for("replacement", replacement, TIMEOUT_S)
    return new["ready_at_s"] - killed_at_s, victim["ready_at_s"] - victim["started_at_s"]


def run(times: int) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        trimtab("deploy", iris(Path(folder, "model")), "--name", "iris", "--concurrency", "2..2")
        envoy = [envoy_back_s(trimtab) for _ in range(times)]
        pods = [pod_back_s(trimtab) for _ in range(times)]
    return {
        "schema_version": 1,
        "envoy_back_s": [round(value, 3) for value in envoy],
        "pod_back_s": [round(back, 2) for back, _ in pods],
        "pod_start_s": [round(start, 2) for _, start in pods],
        "ratio": round(statistics.median(back / start for back, start in pods), 2),
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.times)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"Envoy back after {', '.join(f'{s:.2f}' for s in result['envoy_back_s'])} s")
    print(f"pod replaced after {', '.join(f'{s:.1f}' for s in result['pod_back_s'])} s")
    print(f"the killed pods' own starts took {', '.join(f'{s:.1f}' for s in result['pod_start_s'])} s")
    print(f"ratio {result['ratio']}")


if __name__ == "__main__":
    main()
