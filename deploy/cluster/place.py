"""Where one cluster is: its folder, its names and its addresses. Two checkouts never share any of them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
WHICH = "TRIMTAB_KUBE_CLUSTER"  # of those that a checkout may have, in the environment: 1 if it is not set
MOST = 2  # side by side

# Inside the cluster's own network namespace: every cluster has the same ones.
SERVICES = "10.0.0.0/24"
API_SERVICE = "10.0.0.1"
DNS_SERVICE = "10.0.0.10"
PODS = "10.244.0.0/16"
API_PORT = 6443
ETCD_URL = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Node:
    """One real node: its name, its address, and the range its pods have theirs from."""

    name: str
    folder: Path
    address: str
    pods: str  # a /24
    gateway: str  # its address in that range, on the bridge
    cgroup: str
    namespaces: str = ""  # a folder with its own `net` and `mnt`; empty: the first, in those of the cluster

    @property
    def entered(self) -> tuple[str, ...]:
        """What has to stand before a command of this node."""
        if not self.namespaces:
            return ()
        return ("nsenter", f"--net={self.namespaces}/net", f"--mount={self.namespaces}/mnt", "--")


@dataclass(frozen=True)
class Place:
    """The folder of one cluster and what follows from it. Everything in the folder may be deleted."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def lock(self) -> Path:
        """Beside the folder, which comes and goes."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def node(self) -> Node:
        """The first, beside which the control plane runs."""
        return self.nodes[0]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """As many as there may be."""
        return (
            Node("node", self.folder / "node", "10.90.0.1", "10.244.1.0/24", "10.244.1.1", self._cgroup("")),
            Node(
                "node-b",
                self.folder / "node-b",
                "10.90.0.2",
                "10.244.2.0/24",
                "10.244.2.1",
                self._cgroup("-b"),
                "/run/node-b",
            ),
        )

    def _cgroup(self, ending: str) -> str:
        return f"trimtab-{self.id}{ending}"


def here() -> Place:
    """The cluster of this checkout that the environment names. Raises ClusterError."""
    named = os.environ.get(WHICH, "1")
    for number, place in enumerate(places(), start=1):
        if named == str(number):
            return place
    raise ClusterError(f"{WHICH} is `{named}`", f"use 1 to {MOST}, or do not set it")


def places() -> tuple[Place, ...]:
    """All clusters that this checkout may have, in $XDG_STATE_HOME/trimtab."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    names = [f"{CHECKOUT} {state}", *(f"{CHECKOUT} {state} {number}" for number in range(2, MOST + 1))]
    return tuple(
        Place(state / "trimtab" / f"kube-{hashlib.sha256(name.encode()).hexdigest()[:8]}") for name in names
    )


def cache() -> Path:
    """Where built programs are kept, outside the checkout: $XDG_CACHE_HOME/trimtab."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trimtab"
