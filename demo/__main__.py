"""`make demo`: start trimtab, train a model, deploy it, send it a spike, and show how it is borne.

    python -m demo [--once]

TRIMTAB_HOME and TRIMTAB_LISTEN are honoured; the default home is `.demo` in the checkout. With --once
it stops what it started, and ends with status 0 only if every check held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.rig import TRIMTAB, CommandError, Platform
from demo.checks import Check, checks
from demo.screen import PHASES, Screen
from demo.traffic import Plan, Traffic, ask, plan
from demo.train import NAME, Trained, train
from demo.watch import Record
from trimtab.cli.client import connected
from trimtab.control.options import DEFAULT_LISTEN, parse_address
from trimtab.core.errors import TrimtabError, Unreachable
from trimtab.core.names import EndpointName
from trimtab.host.files import private_folder
from trimtab.host.ports import can_bind, free_port
from trimtab.v1 import control_pb2 as pb

CHECKOUT = Path(__file__).resolve().parent.parent
DOWN_WINDOW_S = 30.0  # trimtab's own is 300: nobody wants to watch that
AFTER_S = DOWN_WINDOW_S + 45.0  # the window, then a decision each 5 s takes away a pod
LOOK_EACH_S = 1.0

console = Console(highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--once", action="store_true", help="end after the summary, and stop everything")
    once = parser.parse_args().once
    os.environ.setdefault("TRIMTAB_DOWN_WINDOW_S", f"{DOWN_WINDOW_S:g}")
    home = Path(os.environ.get("TRIMTAB_HOME") or CHECKOUT / ".demo").expanduser().resolve()
    try:
        return run(home, once)
    except (CommandError, TrimtabError) as error:
        console.print(f"[red]error:[/] {error}", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def run(home: Path, once: bool) -> int:
    """All of it; the exit status."""
    begin_s = time.monotonic()
    trimtab, ours = start(home)
    try:
        trained = prepare(home)
        begin_anew(trimtab)
        deploy(trimtab, trained)
        first_prediction(trimtab, trained)
        console.print(f"  first prediction {time.monotonic() - begin_s:.0f} s after the start")
        held = drive(trimtab, trained)
        if not once:
            farewell(trimtab, trained)
    finally:
        if once and ours:
            step("Stop")
            trimtab("down")
    return 0 if held else 1


def start(home: Path) -> tuple[Platform, bool]:
    """`trimtab up`, or what already runs in that home; and whether it was started here."""
    private_folder(home)
    with contextlib.suppress(Unreachable), connected(home) as control:
        listen = control.call("GetPlatform", pb.GetPlatformRequest()).listen
        step(f"trimtab runs already, on http://{listen}")
        return Platform(home, listen), False
    listen = free_listen(os.environ.get("TRIMTAB_LISTEN") or DEFAULT_LISTEN)
    step(f"Start: trimtab up --detach --listen {listen}")
    trimtab = Platform(home, listen)
    trimtab("up", "--detach", "--listen", listen)
    return trimtab, True


def free_listen(wanted: str) -> str:
    """`wanted`, or a free port of the same address if it is taken. Raises InvalidInput."""
    address = parse_address(wanted, "TRIMTAB_LISTEN")
    if can_bind(address.host, address.port):
        return wanted
    port = free_port(address.host)
    console.print(f"  {wanted} is taken; port {port} is free")
    return f"{wanted.rpartition(':')[0]}:{port}"


def prepare(home: Path) -> Trained:
    """Train and register the model."""
    step("Train a random forest on scikit-learn's handwritten digits and register it with MLflow")
    trained = train(private_folder(home / "demo"))
    console.print(
        f"  {trained.uri} in {trained.tracking_uri}: {trained.accuracy:.1%} right on unseen pictures"
    )
    return trained


def begin_anew(trimtab: Platform) -> None:
    """Take away what an earlier demo left: this one's pods and decisions are to be its own."""
    if any(endpoint["ref"]["name"] == NAME for endpoint in trimtab("status")["endpoints"]):
        step(f"Take away the {NAME} of an earlier demo: trimtab delete {NAME}")
        trimtab("delete", NAME)


def deploy(trimtab: Platform, trained: Trained) -> None:
    """`trimtab deploy`, which shows its own progress. Raises CommandError."""
    arguments = ["deploy", trained.uri, "--name", NAME, "--concurrency", "1..8"]
    step(f"Deploy: trimtab {' '.join(arguments)}")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": trained.tracking_uri}
    command = [str(TRIMTAB), *arguments, "--home", str(trimtab.home)]
    status = subprocess.run(command, env=environment, check=False).returncode
    if status != 0:
        raise CommandError(f"trimtab deploy ended with {status}")


def first_prediction(trimtab: Platform, trained: Trained) -> None:
    """Ask once, as a user would with curl."""
    step("Ask")
    console.print(f"  {curl(trimtab, '[[0.0, 0.0, 5.0, …]]')}")
    answer = ask(trimtab.url(NAME), trained.first_body)
    console.print(f"  {answer.strip()}   (a person wrote a {trained.first_label})")


def drive(trimtab: Platform, trained: Trained) -> bool:
    """Send the three phases, show what happens, tell what held; whether all of it did."""
    url = trimtab.url(NAME)
    planned = plan(url, trained.first_body, AFTER_S)
    shape = ", ".join(f"{rate:g}/s for {seconds:.0f} s" for seconds, rate in planned.phases())
    step(f"Traffic: a prediction takes {1000 * planned.service_time_s:.0f} ms, so {shape}")
    record = Record()
    with Traffic(url, trained.cases, planned) as traffic, Screen(console) as screen:
        while traffic.running:
            new = record.look(trimtab.home, EndpointName.parse(NAME))
            screen.show(record.looks[-1], traffic.second, new)
            time.sleep(LOOK_EACH_S)
    window_s = float(os.environ["TRIMTAB_DOWN_WINDOW_S"])
    return summary(traffic, record, planned, checks(traffic, planned, record, window_s))


def summary(traffic: Traffic, record: Record, planned: Plan, told: list[Check]) -> bool:
    """Two tables: the phases, and what held. Whether all of it held."""
    step("Summary")
    phases = Table("phase", "requests/s", "sent", "failed", "p50", "p99", "pods", box=None)
    begin_s = traffic.began_at_s
    for index, (name, (seconds, rate)) in enumerate(zip(PHASES, planned.phases(), strict=True)):
        seen = traffic.by_phase[index] if index < len(traffic.by_phase) else {}
        looks = [look.ready for look in record.looks if begin_s <= look.at_s < begin_s + seconds]
        begin_s += seconds
        phases.add_row(
            *(name, f"{rate:g}", str(seen.get("sent", "-")), str(seen.get("failed", "-"))),
            *(milliseconds(seen.get(key)) for key in ("p50_s", "p99_s")),
            " to ".join(str(count) for count in sorted({min(looks), max(looks)})) if looks else "-",
        )
    console.print(phases, "")
    for check in told:
        mark = "[green]held[/]  " if check.held else "[red]FAILED[/]"
        console.print(f"  {mark}  {check.what}: ", end="", markup=True)
        console.print(check.seen)
    return all(check.held for check in told)


def milliseconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{1000 * value_s:.0f} ms"


def farewell(trimtab: Platform, trained: Trained) -> None:
    """What to do next with a system that stays up."""
    home = f" --home {trimtab.home}"
    picture = json.dumps(json.loads(trained.first_body)["inputs"], separators=(",", ":"))
    step("It stays up. Ask it yourself:")
    console.print(curl(trimtab, picture.replace(".0", "")))
    for what, command in (
        ("what runs", f"status {NAME}"),
        ("why", f"why {NAME}"),
        ("live", "top"),
        ("stop it all", "down"),
    ):
        console.print(f"  {what + ':':13}{os.path.relpath(TRIMTAB)} {command}{home}")


def curl(trimtab: Platform, rows: str) -> str:
    """The line to paste."""
    body = f'{{"inputs": {rows}}}'
    return f"curl {trimtab.url(NAME)} -H 'content-type: application/json' -d '{body}'"


def step(what: str) -> None:
    """The head of one part of the demo."""
    console.print(f"\n[bold]{what}[/]", markup=True)


if __name__ == "__main__":
    sys.exit(main())
