"""A cluster from its first process to the last trace of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from deploy.cluster import binaries, cgroups, config, fake, images, machine
from deploy.cluster.api import Api
from deploy.cluster.errors import ClusterError
from deploy.cluster.place import DNS_SERVICE, LOOPBACK, Node, Place
from deploy.cluster.plan import plan

READY_WITHIN_S = 120.0  # 8 s on two idle cores
GONE_WITHIN_S = 30.0
INIT = Path(__file__).parent / "init.py"
OWN_NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


def prepare(*, fake_nodes: bool) -> Path:
    """Install and build what a cluster needs; returns the folder of its programs. Raises ClusterError."""
    programs = binaries.needed(fake_nodes=fake_nodes)
    reason = machine.why_not(needs_go=bool(binaries.lacking(programs)))
    if reason:
        raise ClusterError(reason, "docs/kubernetes.md says what a cluster needs")
    machine.provide()
    return binaries.build(programs)


def up(place: Place, fake_nodes: int, nodes: int = 1) -> None:
    """Start a cluster and wait until its nodes are ready. Raises ClusterError, and leaves nothing then."""
    if not 1 <= nodes <= len(place.nodes):
        raise ClusterError(f"{nodes} real nodes are not possible", f"use 1 to {len(place.nodes)}")
    programs = prepare(fake_nodes=fake_nodes > 0)
    if is_up(place):
        machine.tell("is up already")
        if fake_nodes and "kwok" not in json.loads(place.plan.read_text())["programs"]:
            hint = "make kube-down, then kube-up with FAKE_NODES"
            raise ClusterError("the cluster that is up has nobody to play fake nodes", hint)
        if nodes > len(real_nodes(place)):
            hint = f"make kube-down, then kube-up with NODES={nodes}"
            raise ClusterError(f"the cluster that is up has {len(real_nodes(place))} real node", hint)
    else:
        down(place)  # what one left that was killed
        began_s = time.monotonic()
        try:
            _start(place, programs, place.nodes[:nodes], fake_nodes)
        except BaseException:
            down(place)
            raise
        machine.tell(
            f"{'one node' if nodes == 1 else f'{nodes} nodes'} ready after {time.monotonic() - began_s:.1f} s"
        )
    fake.make_nodes(Api(place.kubeconfig), fake_nodes)


def down(place: Place) -> None:
    """End the cluster and remove every trace of it. Nothing happens where there is none."""
    first = first_process(place)
    if first is not None:
        os.kill(first, signal.SIGKILL)  # the kernel ends all that is in its namespaces
        _wait(lambda: _has_ended(first), GONE_WITHIN_S, "the cluster's processes did not end")
    left = [group for node in place.nodes for group in cgroups.remove(node.cgroup)]
    if left:
        raise ClusterError(f"{left[0]} could not be removed", "see which process is in it: cgroup.procs")
    if place.folder.exists():
        shutil.rmtree(place.folder)


def is_up(place: Place) -> bool:
    """Whether its API server answers."""
    if first_process(place) is None or not place.kubeconfig.exists():
        return False
    return Api(place.kubeconfig).get("/readyz") is not None


def first_process(place: Place) -> int | None:
    """The process that holds the cluster's namespaces, as this machine numbers it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().rstrip(b"\0").split(b"\0")[1:] == [b"-I", bytes(INIT), bytes(place.plan)]:
                return int(path.parent.name)
    return None


def _has_ended(process_id: int) -> bool:
    """Whether it is gone, or waits to be buried. It shows no command before all in its namespaces ended."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] in ("Z", "X")


def real_nodes(place: Place) -> tuple[Node, ...]:
    """Those of the cluster that is up."""
    names = json.loads(place.plan.read_text())["nodes"]
    return tuple(node for node in place.nodes if node.name in names)


def import_image(place: Place, archive: Path) -> None:
    """Bring an image onto every node, side by side. Raises ClusterError."""
    with ThreadPoolExecutor() as beside:
        list(beside.map(partial(_import_image, place, archive), real_nodes(place)))


def _import_image(place: Place, archive: Path, node: Node) -> None:
    program = binaries.folder() / "ctr"
    inside = ["nsenter", f"--target={first_process(place)}", "--mount", "--pid", "--net", "--"]
    command = [*inside, *node.entered, str(program)]
    done = subprocess.run(
        [*command, "--namespace=k8s.io", "images", "import", "--local", str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"{archive} was not imported: {done.stderr.strip()}", f"see {place.logs}")


def _start(place: Place, programs: Path, nodes: Sequence[Node], fake_nodes: int) -> None:
    place.folder.mkdir(mode=0o700, parents=True)
    for node in nodes:
        cgroups.make(node.cgroup)
    with socket.create_server((LOOPBACK, 0)) as listener:
        config.write_all(place, nodes, listener.getsockname()[1])
        planned = plan(place, programs, nodes, listener.fileno(), fake_nodes=fake_nodes > 0)
        place.plan.write_text(json.dumps(planned, indent=1))
        _spawn(place, listener.fileno())
    _bring_pause(place, programs)
    api = Api(place.kubeconfig)
    _wait(lambda: api.get("/readyz"), READY_WITHIN_S, f"the API server does not answer: {place.logs}")
    _serve_names(api, place.node.address)
    for node in nodes:
        _wait(partial(is_ready, api, node.name), READY_WITHIN_S, f"no ready {node.name}: see {place.logs}")


def _spawn(place: Place, listener: int) -> None:
    """Start the first process of new namespaces; the listener stays one of the machine's own network."""
    command = ["unshare", *OWN_NAMESPACES, "--", sys.executable, "-I", str(INIT), str(place.plan)]
    said = place.logs / "init.log"
    with said.open("ab") as log:
        # `setsid --fork` ends at once: what it started is no child of ours, and outlives us.
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener],
            check=True,
        )
    _wait(lambda: first_process(place) or said.stat().st_size, READY_WITHIN_S, "no namespaces were made")
    if first_process(place) is None:
        raise ClusterError(
            f"no namespaces were made: {said.read_text().strip()[-400:]}", "it takes CAP_SYS_ADMIN"
        )


def _bring_pause(place: Place, programs: Path) -> None:
    archive = place.folder / "pause.tar"
    images.write_image(programs / "pause", "localhost/pause:1", archive)

    def imported() -> bool:
        if first_process(place) is None:
            said = (place.logs / "init.log").read_text().strip()
            raise ClusterError(
                f"its namespaces were not prepared: {said[-400:]}", "see that command's manual"
            )
        with contextlib.suppress(ClusterError):
            import_image(place, archive)
            return True
        return False

    _wait(imported, READY_WITHIN_S, f"containerd does not answer: see {place.logs}")


def _serve_names(api: Api, dns_address: str) -> None:
    """A Service without a selector, and where it leads: CoreDNS runs beside the pods, not as one."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    service = {"metadata": {"name": "kube-dns"}, "spec": {"clusterIP": DNS_SERVICE, "ports": ports}}
    leads = {
        "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [dns_address]}],
        "ports": ports,
    }
    api.create("/api/v1/namespaces/kube-system/services", service)
    api.create("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", leads)


def is_ready(api: Api, node: str) -> bool:
    """Whether the node says so, now."""
    answer = api.get(f"/api/v1/nodes/{node}")
    conditions = json.loads(answer).get("status", {}).get("conditions", []) if answer else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _wait(done: Callable[[], object], within_s: float, otherwise: str) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline_s:
            raise ClusterError(f"{otherwise} (waited {within_s:.0f} s)", "try `make kube-down kube-up` once")
        time.sleep(0.05)
