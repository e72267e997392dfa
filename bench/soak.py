"""Whether memory stays flat: 200,000 requests of several kinds through the platform to one pod.

    python bench/soak.py [--requests 200000] [--json]

Good rows as JSON in two forms, and of every ten requests three that are refused: CSV, whose named columns the
signature of a tensor does not take, what is no JSON, and a column too few. After an eleventh of the requests,
by which everything has been used, and then ten times more, the resident memory of the pod (its processes
together), of Envoy and of the control plane is read. `growth` is the median of the last three readings less
that of the first three; a leak of 100 bytes a request would be 13 MB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.rig import Platform, iris, machine, platform

READINGS = 10
CONNECTIONS = 16
ROUND_S = 2
ROW = "[5.1, 3.5, 1.4, 0.2]"
KINDS = (
    ("application/json", f'{{"inputs": [{ROW}]}}', 5),
    ("application/json", f'{{"instances": [{ROW}, {ROW}]}}', 2),
    ("text/csv", "a,b,c,d\n5.1,3.5,1.4,0.2\n", 1),
    ("application/json", '{"inputs": [[5.1, 3.5', 1),
    ("application/json", '{"inputs": [[5.1, 3.5]]}', 1),
)
REFUSED_SHARE = 0.3  # of these ten

SCRIPT = """
local kinds = {{ {kinds} }}
local at = 0
wrk.method = "POST"
request = function()
  at = at % #kinds + 1
  return wrk.format("POST", nil, {{["content-type"] = kinds[at][1]}}, kinds[at][2])
end
done = function(summary)
  local e = summary.errors
  local lost = e.connect + e.read + e.write + e.timeout
  io.stderr:write(string.format("%d %d %d", summary.requests, e.status, lost))
end
"""


def script() -> str:
    """For wrk: each kind as often as it says, in turns."""
    quoted = [(f"[==[{kind}]==]", f"[==[{body}]==]") for kind, body, times in KINDS for _ in range(times)]
    return SCRIPT.format(kinds=", ".join(f"{{{kind}, {body}}}" for kind, body in quoted))


def ask(url: str, lua: Path) -> tuple[int, int, int]:
    """Requests of ROUND_S seconds: answered, of these with an error, and lost."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", "-s", str(lua), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answered, failed, lost = map(int, done.stderr.split()[-3:])
    return answered, failed, lost


def memory(trimtab: Platform) -> dict[str, int]:
    """Resident bytes of each part now."""
    seen = trimtab.control_plane()
    pod = psutil.Process(trimtab.pods("iris")[0]["process_id"])
    return {
        "pod": sum(process.memory_info().rss for process in (pod, *pod.children(recursive=True))),
        "envoy": psutil.Process(seen["envoys"][0]["process_id"]).memory_info().rss,
        "control_plane": psutil.Process(seen["process_id"]).memory_info().rss,
    }


def soak(requests: int, send: Callable[[], tuple[int, int, int]], read: Callable[[], dict[str, int]]) -> Any:
    """Send at least `requests`, reading memory READINGS times; the sums and the readings."""
    sums, readings = [0, 0, 0], []
    for due in (requests * (part + 1) / (READINGS + 1) for part in range(READINGS + 1)):
        while sums[0] < due:
            sums = [a + b for a, b in zip(sums, send(), strict=True)]
        readings.append(read())
    return sums, readings[1:]


def run(requests: int) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        lua = Path(folder, "soak.lua")
        lua.write_text(script())
        model = iris(Path(folder, "model"))
        trimtab("deploy", model, "--name", "iris", "--concurrency", "1..16", "--set", "max_pods=1")
        before = trimtab.pods("iris")[0]["process_id"]
        url = trimtab.url("iris")
        (answered, failed, lost), readings = soak(requests, lambda: ask(url, lua), lambda: memory(trimtab))
        same_pod = trimtab.pods("iris")[0]["process_id"] == before
    growth = {part: _growth([reading[part] for reading in readings]) for part in readings[0]}
    return {
        "schema_version": 1,
        "requests": answered,
        "refused": failed,
        "refused_share": round(failed / answered, 4),
        "lost": lost,
        "same_pod": same_pod,
        "memory_bytes": {part: [reading[part] for reading in readings] for part in readings[0]},
        "growth_bytes": growth,
        **machine(),
    }


def _growth(readings: list[int]) -> int:
    return int(statistics.median(readings[-3:]) - statistics.median(readings[:3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.requests)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['requests']} requests, {result['refused']} refused as they should, {result['lost']} lost")
    for part, readings in result["memory_bytes"].items():
        shown = " ".join(f"{bytes_ / 1e6:.1f}" for bytes_ in readings)
        print(f"{part:14} {shown} MB; growth {result['growth_bytes'][part] / 1e6:+.1f} MB")


if __name__ == "__main__":
    main()
