"""What the first process of a cluster's namespaces does: commands first, then programs to keep alive."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.cluster.config import kubeconfig, kwok_config
from deploy.cluster.place import API_PORT, ETCD_URL, SERVICES, Node, Place

QUICK = ("--kube-api-qps=500", "--kube-api-burst=500")


def plan(
    place: Place, programs: Path, nodes: Sequence[Node], api_listener: int, *, fake_nodes: bool
) -> dict[str, Any]:
    """As JSON for `init`. `api_listener` is a listening socket on our loopback that it inherits."""
    own = _control_plane(place)
    if fake_nodes:
        stages = sorted((programs / "kwok-stages").glob("*.yaml"))
        own["kwok"] = [
            "kwok",
            f"--kubeconfig={kubeconfig(place, 'kwok')}",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--config={kwok_config(place)}",
            *(f"--config={stage}" for stage in stages),
        ]
    commands = {name: [str(programs / argv[0]), *argv[1:]] for name, argv in own.items()}
    for node in nodes:
        for name, argv in _node(place, node).items():
            program = [str(programs / argv[0]), *argv[1:]]
            commands[f"{name}{node.name.removeprefix('node')}"] = [*_found(node.entered), *program]
    return {
        "prepare": [
            *_prepare_first(nodes[0]),
            *(step for node in nodes[1:] for step in _prepare(nodes[0], node)),
        ],
        "programs": commands,
        "nodes": [node.name for node in nodes],
        "path": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        "logs": str(place.logs),
        "forwards": [{"listener": api_listener, "port": API_PORT}],
    }


def _found(command: tuple[str, ...]) -> list[str]:
    """With the whole path of its program."""
    return [shutil.which(command[0]) or command[0], *command[1:]] if command else []


def _prepare_first(node: Node) -> list[list[str]]:
    loopback = [["ip", "link", "set", "lo", "up"], ["ip", "addr", "add", f"{node.address}/32", "dev", "lo"]]
    return [*_mounts(node), *loopback, *_network(node)]


def _prepare(first: Node, node: Node) -> list[list[str]]:
    """Another node: namespaces of its own, kept by files, and a cable to the first."""
    inside = ["nsenter", f"--net={node.namespaces}/net", "--"]
    mounts = "; ".join(shlex.join(each) for each in _mounts(node))
    cable = [
        ["ip", "link", "add", f"to-{node.name}", "type", "veth", "peer", "name", "to-node"],
        ["ip", "link", "set", "to-node", "netns", f"{node.namespaces}/net"],
        ["ip", "link", "set", f"to-{node.name}", "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
        [*inside, "ip", "link", "set", "to-node", "up"],
        [*inside, "ip", "addr", "add", f"{node.address}/32", "dev", "lo"],
        *_way(first, node, f"to-{node.name}"),
        *([*inside, *each] for each in _way(node, first, "to-node")),
    ]
    return [
        ["mkdir", node.namespaces],
        ["mount", "--bind", node.namespaces, node.namespaces],
        ["mount", "--make-private", node.namespaces],
        ["touch", f"{node.namespaces}/net", f"{node.namespaces}/mnt"],
        ["unshare", f"--net={node.namespaces}/net", "true"],
        _on_some_cpu(["unshare", f"--mount={node.namespaces}/mnt", "sh", "-ec", mounts]),
        *cable,
        *([*inside, *each] for each in _network(node)),
    ]


def _on_some_cpu(command: list[str]) -> list[str]:
    """A file may keep only a mount namespace with a higher number than that it is in, and since Linux 6.18
    each CPU has numbers of its own: that on which ours was made gives higher ones. The helper of util-linux
    2.38 may look before there is a new one, too. Nothing is done until it is kept.
    """
    once = shlex.join(command)
    cpus = " ".join(map(str, 3 * sorted(os.sched_getaffinity(0))))
    return ["sh", "-c", f"for cpu in {cpus}; do taskset --cpu-list $cpu {once} && exit; done; exec {once}"]


def _way(here: Node, there: Node, device: str) -> list[list[str]]:
    """From one node to another, and to its pods."""
    return [
        ["ip", "route", "add", there.address, "dev", device, "src", here.address],
        [
            "ip",
            "route",
            "add",
            there.pods,
            "via",
            there.address,
            "dev",
            device,
            "onlink",
            "src",
            here.address,
        ],
    ]


def _mounts(node: Node) -> list[list[str]]:
    """What the programs have fixed paths for is the node's own: nothing of it is left in the machine's."""
    return [
        ["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"],
        ["mount", "--bind", str(node.folder / "lib"), "/var/lib"],
        ["mount", "--bind", str(node.folder / "log"), "/var/log"],
        ["mount", "--make-rshared", "/"],
    ]


def _network(node: Node) -> list[list[str]]:
    size = node.pods.partition("/")[2]
    return [
        ["ip", "link", "add", "pods", "type", "bridge"],
        ["ip", "addr", "add", f"{node.gateway}/{size}", "dev", "pods"],
        ["ip", "link", "set", "pods", "up"],
        ["ip", "route", "add", SERVICES, "dev", "pods"],  # without it the node itself reaches no Service
        ["sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ]


def _control_plane(place: Place) -> dict[str, list[str]]:
    key, certificate = place.folder / "accounts.key", place.folder / "api.crt"
    return {
        "etcd": [
            "etcd",
            f"--data-dir={place.folder}/etcd",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            "--unsafe-no-fsync",  # nothing of it outlives `make kube-down`
            "--log-level=warn",
        ],
        "kube-apiserver": [
            "kube-apiserver",
            f"--etcd-servers={ETCD_URL}",
            f"--secure-port={API_PORT}",
            f"--advertise-address={place.node.address}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={place.folder}/api.key",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={place.folder}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--service-cluster-ip-range={SERVICES}",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "kube-controller-manager": [
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig(place, 'controllers')}",
            f"--service-account-private-key-file={key}",
            f"--root-ca-file={certificate}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            *QUICK,
        ],
        "kube-scheduler": [
            "kube-scheduler",
            f"--kubeconfig={kubeconfig(place, 'scheduler')}",
            "--leader-elect=false",
            *QUICK,
        ],
        "coredns": ["coredns", "-conf", str(place.folder / "Corefile")],
    }


def _node(place: Place, node: Node) -> dict[str, list[str]]:
    return {
        "containerd": ["containerd", f"--config={node.folder}/containerd.toml", "--log-level=warn"],
        "kubelet": [
            "kubelet",
            f"--config={node.folder}/kubelet.json",
            f"--kubeconfig={kubeconfig(place, node.name)}",
            "--root-dir=/var/lib/kubelet",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ],
        "kube-proxy": ["kube-proxy", f"--config={node.folder}/proxy.json"],
    }
