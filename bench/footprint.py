"""What the platform itself takes: memory and CPU of the control plane and of Envoy, at rest.

    python bench/footprint.py [--endpoints 5] [--json]

Starts a platform of its own and reads it with no endpoint, with one, and with several. Resident
memory, the median of readings over some seconds after the last change.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.rig import Platform, iris, machine, platform

REST_S = 5.0  # after a deployment, before it is called at rest
READINGS = 10
READ_EACH_S = 0.5


def at_rest(trimtab: Platform) -> dict[str, Any]:
    """Resident bytes of the control plane and of Envoy, and the share of a core that each uses."""
    seen = trimtab.control_plane()
    processes = {
        "control_plane": psutil.Process(seen["process_id"]),
        "envoy": psutil.Process(seen["envoys"][0]["process_id"]),
    }
    time.sleep(REST_S)
    used_s = {name: cpu_seconds(process) for name, process in processes.items()}
    resident: dict[str, list[int]] = {name: [] for name in processes}
    for _ in range(READINGS):
        time.sleep(READ_EACH_S)
        for name, process in processes.items():
            resident[name].append(process.memory_info().rss)
    span_s = READINGS * READ_EACH_S
    return {
        name: {
            "memory_bytes": int(statistics.median(resident[name])),
            "cpu_cores": round((cpu_seconds(process) - used_s[name]) / span_s, 4),
        }
        for name, process in processes.items()
    }


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time since its start."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run(endpoints: int) -> dict[str, Any]:
    """The whole measurement; the readings are keyed by the number of endpoints."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        readings = {0: at_rest(trimtab)}
        model = iris(Path(folder, "model"))
        for count in range(1, endpoints + 1):
            trimtab("deploy", model, "--name", f"iris-{count}", "--concurrency", "1..1")
            if count in (1, endpoints):
                readings[count] = at_rest(trimtab)
    return {"schema_version": 1, "endpoints": readings, **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.endpoints)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{'endpoints':>9}  {'control plane':>20}  {'Envoy':>20}")
    for count, reading in result["endpoints"].items():
        shown = (words(reading[name]) for name in ("control_plane", "envoy"))
        print(f"{count:>9}  {'  '.join(f'{text:>20}' for text in shown)}")


def words(reading: dict[str, float]) -> str:
    return f"{reading['memory_bytes'] / 2**20:.0f} MiB, {100 * reading['cpu_cores']:.1f} % CPU"


if __name__ == "__main__":
    main()
