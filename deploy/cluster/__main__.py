"""A real Kubernetes on this machine.

python -m deploy.cluster up [--nodes 2] [--fake-nodes N]   starts it; prints what a shell should evaluate
python -m deploy.cluster load ARCHIVE…  brings images onto its nodes: see `python -m deploy.images build`
python -m deploy.cluster down           removes every trace of it, and of the second one of this checkout
python -m deploy.cluster with [--nodes 2] [--fake-nodes N] [--clusters 2] COMMAND…
                                        runs a command with one of two nodes; what was not up goes again.
                                        Of two clusters: twice at once, TRIMTAB_KUBE_SHARE says for which half
python -m deploy.cluster prepare        brings the packages and programs of one, and starts none
python -m deploy.cluster why-not        says why no cluster can be started here; status 1 then
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.cluster import binaries, lifecycle, machine, shares
from deploy.cluster.errors import ClusterError
from deploy.cluster.lock import Lock, locked
from deploy.cluster.place import MOST, Place, here, places

END_WITHIN_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy.cluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    starts = commands.add_parser("up")
    starts.add_argument("--nodes", type=int, default=1, metavar="N")
    starts.add_argument("--fake-nodes", type=int, default=0, metavar="N")
    commands.add_parser("load").add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    commands.add_parser("down")
    runs = commands.add_parser("with")
    runs.add_argument("--nodes", type=int, default=2, metavar="N")
    runs.add_argument("--fake-nodes", type=int, default=0, metavar="N")
    runs.add_argument("--clusters", type=int, default=1, choices=range(1, MOST + 1))
    runs.add_argument("command", nargs=argparse.REMAINDER)
    commands.add_parser("prepare")
    commands.add_parser("why-not")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was begun is removed then
    try:
        place = here()
        if asked.what == "up":
            _up(place, asked.fake_nodes, asked.nodes)
            sys.stdout.write(f"export KUBECONFIG={place.kubeconfig}\n")
        elif asked.what == "load":
            _load(place, asked.archives)
        elif asked.what == "down":
            for each in places():
                with locked(each, own=True) as lock:
                    lifecycle.down(each)
                    lock.remove()
        elif asked.what == "prepare":
            lifecycle.prepare(fake_nodes=True)
            binaries.build_helm()
        elif asked.what == "with":
            if asked.clusters > 1 and _may_have_two():
                return _side_by_side(asked)
            return _with(place, asked.command, asked.fake_nodes, asked.nodes)
        else:
            return _why_not()
    except ClusterError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    except KeyboardInterrupt:  # what was begun has been removed
        return 128 + signal.SIGINT
    return 0


def _load(place: Place, archives: Sequence[Path]) -> None:
    if not lifecycle.is_up(place):
        raise ClusterError("the cluster of this checkout does not run", "make kube-up")
    for archive in archives:
        if not archive.is_file():
            raise ClusterError(f"there is no file {archive}", "`python -m deploy.images build` names some")
        lifecycle.import_image(place, archive)


def _may_have_two() -> bool:
    """Not where KUBECONFIG names a cluster: that is one. Says so where the machine is too small."""
    if os.environ.get("KUBECONFIG"):
        return False
    if reason := machine.why_one():
        machine.tell(f"one cluster does all: {reason}")
    return not reason


def _side_by_side(asked: argparse.Namespace) -> int:
    lifecycle.prepare(fake_nodes=True)  # once, and not by each
    words = ["with", "--nodes", str(asked.nodes), "--fake-nodes", str(asked.fake_nodes), *asked.command]
    return shares.run([sys.executable, "-m", "deploy.cluster", *words], asked.clusters)


def _with(place: Place, command: list[str], fake_nodes: int, nodes: int) -> int:
    """The cluster of KUBECONFIG where one is given; ours otherwise."""
    if os.environ.get("KUBECONFIG"):
        return _run(command, os.environ)
    lifecycle.prepare(fake_nodes=True)  # no test should have to wait for a build
    with locked(place, own=False) as lock:
        was_up = lifecycle.is_up(place)
        if not was_up:
            lock.own()
            lifecycle.up(place, fake_nodes, nodes=nodes)
            lock.use()
        elif fake_nodes:
            lifecycle.up(place, fake_nodes)  # says so where it has nobody who plays them
        try:
            return _run(command, os.environ | {"KUBECONFIG": str(place.kubeconfig)})
        finally:
            if not was_up:
                _down_unless_used(place, lock)


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    """Its status. Where we are told to end it has a moment to end what it has started, clusters too."""
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except BaseException as told:
            if not isinstance(told, KeyboardInterrupt):  # the terminal's Ctrl-C has reached it too
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_WITHIN_S)
            process.kill()
            raise


def _up(place: Place, fake_nodes: int, nodes: int) -> None:
    """One that is up may be in use."""
    with locked(place, own=not lifecycle.is_up(place)):
        lifecycle.up(place, fake_nodes, nodes)


def _down_unless_used(place: Place, lock: Lock) -> None:
    try:
        lock.own()
    except ClusterError:
        machine.tell("stays up, for another command uses it; `make kube-down` removes it afterwards")
        return
    lifecycle.down(place)
    lock.remove()


def _why_not() -> int:
    """Of all that `with` prepares."""
    needs_go = bool(binaries.lacking(binaries.needed(fake_nodes=True))) or not binaries.helm().exists()
    reason = machine.why_not(needs_go=needs_go)
    if reason:
        sys.stdout.write(f"{reason}\n")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
