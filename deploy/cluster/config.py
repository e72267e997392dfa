"""What the programs of a cluster read: certificates, tokens, kubeconfigs, and a file for each."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.cluster.place import API_PORT, API_SERVICE, DNS_SERVICE, LOOPBACK, PODS, Node, Place

Json = dict[str, Any]

# Who speaks to the API server: its Kubernetes user, and its groups.
USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("dns", "system:masters"),
    "kwok": ("kwok", "system:masters"),
}

# With 4 at once, its default, ten thousand pods make an API server slow enough for 9 pods a second. And a
# node's lease that is renewed each 10 s comes too late then for the 50 s after which all pods on it are
# called unready: which kwok never takes back.
KWOK = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    "options": {  # of one in a file the others have no defaults
        "podPlayStageParallelism": 64,
        "nodePlayStageParallelism": 4,
        "nodeLeaseParallelism": 4,
        "nodeLeaseDurationSeconds": 12,
        "podsOnNodeSyncParallelism": 1,
        "cidr": "10.0.0.0/24",
    },
}


def node_user(node: Node) -> str:
    return f"system:node:{node.name}"


def write_all(place: Place, nodes: Sequence[Node], api_port: int) -> None:
    """Every file that the programs of `place` read; `api_port` is the API server's on our loopback."""
    place.logs.mkdir(parents=True)
    _certificate(place)
    users = USERS | {node.name: (node_user(node), "system:nodes") for node in nodes}
    tokens = {user: secrets.token_hex(16) for user in users}
    lines = [f'{tokens[user]},{name},{name},"{groups}"' for user, (name, groups) in users.items()]
    _private(place.folder / "tokens.csv", "\n".join(lines) + "\n")
    for user, token in tokens.items():
        _write_json(kubeconfig(place, user), _kubeconfig(place, token, place.node.address, API_PORT))
    _write_json(place.kubeconfig, _kubeconfig(place, tokens["admin"], LOOPBACK, api_port))
    for node in nodes:
        _write_node(node, kubeconfig(place, "proxy"))
    corefile = f"""\
.:53 {{
    bind {place.node.address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig(place, "dns")}
    }}
    cache 5
}}
"""
    (place.folder / "Corefile").write_text(corefile)
    _write_json(kwok_config(place), KWOK)


def kwok_config(place: Place) -> Path:
    """How kwok pretends."""
    return place.folder / "kwok.json"


def kubeconfig(place: Place, user: str) -> Path:
    """The one that `user` has inside the cluster's namespaces."""
    return place.folder / f"{user}.kubeconfig"


def _write_node(node: Node, proxy_kubeconfig: Path) -> None:
    cni = node.folder / "cni"
    for folder in (cni, node.folder / "lib", node.folder / "log", node.folder / "containerd"):
        folder.mkdir(parents=True)
    _write_json(cni / "10-pods.conflist", _cni(node))
    _write_json(node.folder / "kubelet.json", _kubelet(node))
    _write_json(node.folder / "proxy.json", _proxy(node, proxy_kubeconfig))
    (node.folder / "resolv.conf").write_text(f"nameserver {DNS_SERVICE}\n")
    (node.folder / "containerd.toml").write_text(_containerd(node))


def _certificate(place: Place) -> None:
    """One certificate that is its own authority, and the key that signs service accounts' tokens."""
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    addresses = (LOOPBACK, API_SERVICE, place.node.address)
    alternatives = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", str(place.folder / "api.key"), "-out", str(place.folder / "api.crt"),
        "-days", "365", "-subj", "/CN=trimtab-kube", "-addext", f"subjectAltName={alternatives}",
        "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
    )  # fmt: skip
    key = str(place.folder / "accounts.key")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _kubeconfig(place: Place, token: str, address: str, port: int) -> Json:
    authority = str(place.folder / "api.crt")
    server = f"https://{address}:{port}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": place.id, "context": {"cluster": "c", "user": "u"}}],
        "current-context": place.id,
    }


def _cni(node: Node) -> Json:
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods, "gateway": node.gateway}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]}


def _kubelet(node: Node) -> Json:
    full = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "pid.available")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Whoever is in the cluster's own network may ask the kubelet: it is a cluster for tests.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": dict.fromkeys(full, "0%"),
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "maxPods": 200,
        "oomScoreAdj": 0,  # a lower one needs CAP_SYS_RESOURCE
        "resolvConf": str(node.folder / "resolv.conf"),
        "serializeImagePulls": False,
        "volumePluginDir": str(node.folder / "volume-plugins"),
    }


def _proxy(node: Node, own_kubeconfig: Path) -> Json:
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(own_kubeconfig)},
        "clusterCIDR": PODS,
        "conntrack": untouched,
        "hostnameOverride": node.name,
        "mode": "iptables",
    }


def _containerd(node: Node) -> str:
    return f"""\
version = 3
root = "{node.folder}/containerd"
state = "/run/containerd"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE runc dies otherwise
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{node.folder}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _write_json(path: Path, content: Json) -> None:
    _private(path, json.dumps(content, indent=1) + "\n")


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
