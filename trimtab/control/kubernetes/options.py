"""What a control plane on Kubernetes is started with, and the check of it before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.autoscaler.envoys import AIM, DOWN_WINDOW_S
from trimtab.control.endpoints import CannotServe
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.control.options import Address, down_window_s, envoy_aim, parse_address, read_api_keys
from trimtab.core.errors import InvalidInput, Problem, Unauthorised
from trimtab.core.names import EndpointName
from trimtab.core.spec import LABEL_KEY, EndpointSpec
from trimtab.fleet.kubernetes import (
    BRING_IMAGE,
    HOLD_IMAGE,
    HOSTNAME,
    TAKEN_PORTS,
    Callers,
    Sized,
    Warm,
    parse_shapes,
    parse_sized,
)
from trimtab.runtime.catalog import arguments_problem
from trimtab.xds.world import ApiKey

DEFAULT_LISTEN = "0.0.0.0:8080"  # in Envoy's pods
DEFAULT_CONTROL = "127.0.0.1:8081"  # in ours: reached by a port-forward, which the API server allows or not


@dataclass(frozen=True)
class KubernetesOptions:
    """Options of `trimtab control`.

    `listen` is where Envoys listen, `public` how callers reach them. `xds` is where we listen for Envoys,
    `xds_tls` a folder of `tls.crt`, `tls.key` and `ca.crt` for it; `xds_plaintext` says that others are kept
    away by a NetworkPolicy instead. `callers_tls` is a file, in Envoys' pods, that names the files of their
    certificate for callers (see `envoy.secrets`); empty: callers come in the clear. `images` are by the name
    of a runtime, and by `hold`. `namespace` is the one whose endpoints are served, empty for all. `callers`
    are NAMESPACE/LABEL=VALUE[,…]: who may reach the models' pods, Envoys and we ourselves. `api` is where the
    control API listens for people who show a token, with the certificate in the folder `api_tls`; `control`
    is for whoever is in our pod, and asks nobody. `dcgm_pods` is the namespace of DCGM exporters;
    `node_metrics` says whether kubelets are asked for what pods use, `watch_nodes` whether nodes are watched
    for those that are about to go. `model_cache` is the URL by which pods reach the cache of their node.
    `placeholders` are NAMESPACE/DEPLOYMENT:max=N,cpu=Q[,memory=Q][,RESOURCE=N], whose counts we set: a node
    takes `placeholder_lead_s` until it holds pods, and `placeholder_over_s` are looked back. `envoys` is
    NAMESPACE/DEPLOYMENT:min=N,max=N of the Envoys whose number we set; empty: somebody else does. `lease` is
    NAMESPACE/NAME of the Lease by which one of several replicas leads; empty: there is only this one.
    `advertise` is where the others reach `xds` of this one, and `xds_name` the name in the certificates of
    all of them; without `advertise` others cannot follow it, and serve nothing while it leads. `pull_secrets`
    are names of Secrets in endpoints' own namespaces, by which their pods' images are pulled.
    `topology_keys` are labels of nodes, over whose values pods are spread; none: over nodes.
    """

    home: Path
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = ""
    listen: str = DEFAULT_LISTEN
    public: str = ""
    api_keys: Path | None = None
    without_keys: bool = False
    domain: str = "localhost"
    xds: str = ""
    xds_tls: Path | None = None
    xds_plaintext: bool = False
    xds_name: str = ""
    advertise: str = ""
    callers_tls: str = ""
    control: str = DEFAULT_CONTROL
    api: str = ""
    api_tls: Path | None = None
    metrics_listen: str = "127.0.0.1:0"
    dcgm: str = ""
    dcgm_pods: str = ""
    node_metrics: bool = True
    watch_nodes: bool = False
    model_cache: str = ""
    placeholders: tuple[str, ...] = ()
    placeholder_lead_s: float = 120.0
    placeholder_over_s: float = 1_800.0
    envoys: str = ""
    callers: str = ""
    lease: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    topology_keys: tuple[str, ...] = ()


def checked_gateway(options: KubernetesOptions) -> tuple[Address, tuple[ApiKey, ...]]:
    """Where Envoys listen, and callers' keys. Raises InvalidInput, NotFound or Unauthorised."""
    address = parse_address(options.listen, "--listen")
    keys = read_api_keys(options.api_keys) if options.api_keys else ()
    if not address.loopback and not keys and not options.without_keys:
        raise Unauthorised(
            f"{address} can be reached from all over the cluster, and no caller would need a key",
            where="--listen",
            hint="add --api-keys FILE (one `CLIENT KEY` per line), or --without-keys",
        )
    return address, keys


def checked_xds(options: KubernetesOptions) -> tuple[Address | None, Certificates | None]:
    """Where to listen for Envoys beside our socket. Raises InvalidInput, NotFound or Unauthorised."""
    if not options.xds:
        return None, None
    address = parse_address(options.xds, "--xds", port_min=0)
    if options.xds_tls is not None:
        return address, Certificates.open(options.xds_tls)
    if not address.loopback and not options.xds_plaintext:
        raise Unauthorised(
            f"whoever reaches {address} would be told of every pod and of callers' keys",
            where="--xds",
            hint="add --xds-tls FOLDER, or --xds-plaintext if a NetworkPolicy keeps all but Envoys away",
        )
    return address, None


def checked_advertise(options: KubernetesOptions) -> str:
    """Where other control planes reach `xds`; empty if they do not. Raises InvalidInput."""
    if not options.advertise:
        return ""
    where = "--advertise"
    address = parse_address(options.advertise, where)
    if not options.lease or not options.xds:
        hint = "add --lease and --xds, or leave it out"
        raise InvalidInput("is for several control planes", where=where, hint=hint)
    if options.xds_tls is not None and not options.xds_name:
        hint = "give the name that the certificate in --xds-tls is for: other holders of one must not follow"
        raise InvalidInput("is missing", where="--xds-name", hint=hint)
    return str(address)


def checked_control(options: KubernetesOptions) -> Address:
    """Where the control API listens beside the socket in our home. Raises InvalidInput or Unauthorised."""
    address = parse_address(options.control, "--control", port_min=0)
    if not address.loopback:
        hint = "listen on 127.0.0.1: `trimtab --kube-context` reaches it by a port-forward"
        raise Unauthorised(
            "the control API runs code, and listens on loopback only", where="--control", hint=hint
        )
    return address


def checked_api(options: KubernetesOptions) -> tuple[Address | None, Certificates | None]:
    """Where it listens for people with tokens. Raises InvalidInput, NotFound or Unauthorised."""
    if not options.api:
        return None, None
    address = parse_address(options.api, "--api", port_min=0)
    if options.api_tls is None:
        hint = "add --api-tls FOLDER, with tls.crt, tls.key and ca.crt"
        raise Unauthorised("tokens would come in the clear", where="--api", hint=hint)
    return address, Certificates.open(options.api_tls)


def checked_callers(options: KubernetesOptions) -> Callers:
    """Who may reach the models' pods. Raises InvalidInput."""
    if not options.callers:
        return Callers()
    namespace, _, said = options.callers.partition("/")
    labels = dict(part.partition("=")[::2] for part in said.split(","))
    if not namespace or not all(labels) or not all(labels.values()):
        hint = "write NAMESPACE/LABEL=VALUE[,…], for example trimtab/app.kubernetes.io/part-of=trimtab"
        raise InvalidInput(f"`{options.callers}` names no pods", where="--callers", hint=hint)
    return Callers(namespace, labels)


def checked_placeholders(options: KubernetesOptions) -> Warm | None:
    """Whose counts are ours to set, if there are any. Raises InvalidInput."""
    namespace, shapes = parse_shapes(options.placeholders)
    if not shapes:
        return None
    lead_s, over_s = options.placeholder_lead_s, options.placeholder_over_s
    if not 0 < lead_s <= over_s:
        hint = "give the time that a node takes, and a longer one to look back"
        raise InvalidInput(f"{lead_s:g} s of {over_s:g} s", where="--placeholder-lead", hint=hint)
    return Warm(namespace, shapes, lead_s, over_s)


def checked_topology_keys(options: KubernetesOptions) -> tuple[str, ...]:
    """Labels of nodes, over whose values pods are spread. Raises InvalidInput."""
    for key in options.topology_keys:
        if not LABEL_KEY.fullmatch(key):
            hint = "name a label that every node has, for example topology.kubernetes.io/zone"
            raise InvalidInput(f"`{key}` is no label of a node", where="--topology-key", hint=hint)
    return tuple(dict.fromkeys(options.topology_keys)) or (HOSTNAME,)


def checked_envoys(options: KubernetesOptions, environment: Mapping[str, str]) -> Sized | None:
    """Whose number is ours to set, if it is. Raises InvalidInput."""
    if not options.envoys:
        return None
    aim, window_s = envoy_aim(environment), down_window_s(environment)
    return parse_sized(options.envoys, aim or AIM, window_s or DOWN_WINDOW_S)


def on_kubernetes(images: Mapping[str, str]) -> CannotServe:
    """What keeps a spec from being served in pods of these images."""

    def problems(name: EndpointName, spec: EndpointSpec) -> list[Problem]:  # noqa: ARG001
        found = []
        for index, model in enumerate(spec.models):
            where = f"models[{index}]"
            if model.runtime == "custom" and not model.custom.image:
                hint = "give custom.image: a pod has no folder of yours to run a command in"
                found.append(Problem(f"{where}.custom", "has no image", hint))
            elif model.custom.port in TAKEN_PORTS:
                hint = "let it listen at $PORT, or somewhere else"
                told = f"{model.custom.port} is what gRPC, metrics or the sidecar of a pod have"
                found.append(Problem(f"{where}.custom.port", told, hint))
            elif model.runtime != "custom" and model.runtime not in images:
                known = ", ".join(sorted({*images, "custom"} - {HOLD_IMAGE}))
                hint = f"this control plane has: {known}; bring an image of your own by custom.image"
                found.append(Problem(f"{where}.runtime", f"there is no image for `{model.runtime}`", hint))
            elif model.runtime != "custom" and BRING_IMAGE not in images:
                hint = f"give this control plane an image for `{BRING_IMAGE}`"
                found.append(Problem(f"{where}.runtime", "nothing here brings its model", hint))
            elif model.runtime != "custom" and (problem := arguments_problem(model)) is not None:
                found.append(Problem(f"{where}.{problem.where}", problem.message, problem.hint))
        return found

    return problems
