"""What a broken neighbour costs: one endpoint's latency alone, and while another one breaks beside it.

    python bench/isolation.py [--seconds 30] [--rate 20] [--json]

Starts a platform of its own with one healthy endpoint under open-loop load. For each way to break,
its latency is taken alone, then with the broken model deployed beside it, in one go; `ratio` is of the
p99s. Broken: crashes while loading, hangs while loading, answers errors, eats memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from bench.rig import CommandError, Platform, machine, platform

LOAD = Path(__file__).parent / "load.py"
BODY = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]})
ANSWERS = "def predict(self, context, model_input, params=None):\n    {}"
LOADS = "def load_context(self, context):\n    {}\n\n" + ANSWERS.format("return [0]")
HEALTHY = ANSWERS.format("time.sleep(0.04); return [1]")
BROKEN = {
    "crashes": LOADS.format("raise RuntimeError('the weights are corrupt')"),
    "hangs": LOADS.format("time.sleep(3600)"),
    "errs": ANSWERS.format("raise ValueError('no such flower')"),
    "eats": ANSWERS.format("self.held = [bytearray(b'x' * (1 << 20)) for _ in range(4096)]; return [0]"),
}
SETTINGS = ("start_timeout_s=10", "resources.memory=1Gi")


def save(name: str, source: str, folder: Path) -> str:
    """Save a model from its text; what `trimtab deploy` is given."""
    import mlflow.pyfunc  # noqa: PLC0415 -- takes seconds; only needed here
    import numpy as np  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    code = folder / f"{name}.py"
    code.write_text(
        "import time\nimport mlflow.pyfunc\nfrom mlflow.models import set_model\n\n"
        f"class Model(mlflow.pyfunc.PythonModel):\n{textwrap.indent(source, '    ')}\n\nset_model(Model())\n"
    )
    signature = infer_signature(np.ones((1, 4)), np.array([1]))
    path = folder / name
    mlflow.pyfunc.save_model(str(path), python_model=str(code), signature=signature, pip_requirements=[])
    return str(path)


def load(url: str, seconds: float, rate: float) -> subprocess.Popen[str]:
    """An open-loop load beside us."""
    command = [sys.executable, str(LOAD), "--url", url, "--body", BODY, "--json"]
    command += ["--header", "content-type=application/json", "--phase", f"{seconds:g}:{rate:g}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def totals(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the load came to, once it has ended."""
    output, _ = process.communicate(timeout=300)
    lines = [json.loads(line) for line in output.splitlines()]
    return next(line for line in lines if line["kind"] == "total")


def beside(trimtab: Platform, model: str, seconds: float, rate: float) -> dict[str, Any]:
    """The healthy endpoint's latency alone, then while `model` is deployed and asked beside it."""
    alone = totals(load(trimtab.url("good"), seconds, rate))
    under = load(trimtab.url("good"), seconds, rate)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    try:
        trimtab("deploy", model, "--name", "bad", *settings)
        totals(load(trimtab.url("bad"), seconds / 2, 1))
    except CommandError:
        pass  # it does not start: that is what it is for
    together = totals(under)
    state = trimtab.endpoint("bad")["status"]["state"]
    trimtab("delete", "bad")
    keep = ("sent", "failed", "p50_s", "p99_s")
    return {
        "alone": {key: alone[key] for key in keep},
        "beside": {key: together[key] for key in keep},
        "ratio": round(together["p99_s"] / alone["p99_s"], 2),
        "state": state,
    }


def run(seconds: float, rate: float) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as name, platform() as trimtab:
        folder = Path(name)
        trimtab("deploy", save("good", HEALTHY, folder), "--name", "good", "--concurrency", "3..6")
        cases = {}
        for kind, source in BROKEN.items():
            cases[kind] = beside(trimtab, save(kind, source, folder), seconds, rate)
    return {"schema_version": 1, "cases": cases, **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of each side")
    parser.add_argument("--rate", type=float, default=20, help="requests per second")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.seconds, arguments.rate)
    if arguments.json:
        print(json.dumps(result))
        return
    for kind, case in result["cases"].items():
        alone, together = case["alone"], case["beside"]
        print(
            f"{kind:8} p99 {1000 * alone['p99_s']:.0f} ms alone, {1000 * together['p99_s']:.0f} ms beside it"
            f" (ratio {case['ratio']}); failed {together['failed']} of {together['sent']}; {case['state']}"
        )


if __name__ == "__main__":
    main()
