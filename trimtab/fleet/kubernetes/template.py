"""The Deployment of a revision. Pure. It is written once: what a later version would write rolls no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.core.errors import Failed
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import IN_THE_MODELS_ENVIRONMENT, ModelSpec, Placement
from trimtab.modelcache import words as cache_words
from trimtab.runtime.catalog import CUSTOM, RUNTIMES, Launch, Runtime

Json = dict[str, Any]
Images = Mapping[str, str]

PREFIX = "serving.trimtab.dev"
ENDPOINT = f"{PREFIX}/endpoint"  # these two are labels: what a pod is of
REVISION = f"{PREFIX}/revision"
HASH = f"{PREFIX}/hash"  # these two are annotations
RUNTIME = f"{PREFIX}/runtime"
GATE = f"{PREFIX}/serving"  # the readiness gate: false from when we have drained the pod
COST = "controller.kubernetes.io/pod-deletion-cost"
COST_OF_LEAVING = "-2147483648"

CONTAINER = "model"
PORT, GRPC_PORT, METRICS_PORT = 8080, 8081, 8082
HTTP, GRPC, METRICS = "http", "grpc", "metrics"  # what these are called in a pod
HOLD = "hold"  # stands beside the model: see deploy/hold
HOLD_PORT = 8083
TAKEN_PORTS = frozenset({GRPC_PORT, METRICS_PORT, HOLD_PORT})
HOLD_IMAGE = HOLD  # in Images, beside the runtimes'
UNHELD_S = 5  # without it: Envoy knows by then, and the server has to end what it has by itself
CACHE_VOLUME = "model-cache"  # with a token, by which a pod shows the cache of its node who it is
CACHE_TOKEN_S = 3600  # the kubelet renews it in time
TMP = "/tmp"  # noqa: S108 - the only place that a pod can write to
MODEL_FOLDER = Path("/model")  # of an image that has its model in it
HOME = "/model"  # of what a pod brings itself: its model, and the environment of it
PREPARE = ("python", "-m", "trimtab.prepare")  # fills in `{python}` and `{model}`
BRING = "bring"  # runs before a server of its makers' image, which cannot bring its model
BRING_IMAGE = "mlflow"  # in Images: it has what brings models
BROUGHT = Path(HOME, "served")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - 64 MB unless said: servers talk with their workers through it
USER = 65532  # such images would run as root
HOSTNAME = "kubernetes.io/hostname"  # a label of each node
MAX_SKEW = 1  # how many pods of a revision one node may have more than another, if both have room
TERM_GRACE_S = 30  # for what a pod still has when it is told to end all the same
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def hold_s(revision: Revision) -> int:
    """How long a pod that Kubernetes takes away goes on serving unless it is let go before.

    In that time one in its place may start, and what it has in flight may end.
    """
    return max(1, int(revision.model.start_timeout_s))


def name_of(key: RevisionKey) -> str:
    """Of its Deployment: `iris-r3`."""
    return f"{key.endpoint.name}-r{key.number}"


def account_of(endpoint: EndpointName) -> str:
    """Of its ServiceAccount and NetworkPolicy: a name that people's own objects hardly have."""
    return f"trimtab-{endpoint.name}"


def labels_of(key: RevisionKey) -> dict[str, str]:
    return {ENDPOINT: key.endpoint.name, REVISION: str(key.number)}


def deployment(
    revision: Revision,
    images: Images,
    replicas: int,
    model_cache: str = "",
    topology_keys: Sequence[str] = (HOSTNAME,),
) -> Json:
    """The whole object. Raises Failed if there is no image for the revision's runtime.

    `model_cache` is the URL at which pods that bring their model reach the cache of their node; may be empty.
    Pods are spread over the values of each of `topology_keys`, labels of nodes.
    """
    key = revision.key
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name_of(key),
            "namespace": key.endpoint.namespace,
            "labels": labels_of(key),
            "annotations": {HASH: revision.hash},
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,  # its template never changes
            "progressDeadlineSeconds": int(revision.model.start_timeout_s),
            "selector": {"matchLabels": labels_of(key)},
            "template": {
                "metadata": {
                    "labels": labels_of(key),
                    "annotations": {HASH: revision.hash, RUNTIME: revision.model.runtime},
                },
                "spec": _pod(revision, images, model_cache) | _spread(revision.key, topology_keys),
            },
        },
    }


def _pod(revision: Revision, images: Images, model_cache: str) -> Json:
    cached = model_cache if _brings(revision.model) else ""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": account_of(revision.key.endpoint),
        **_placement(revision.model.placement),
        "terminationGracePeriodSeconds": hold_s(revision) + TERM_GRACE_S,
        "readinessGates": [{"conditionType": GATE}],
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"runAsUser": USER, "runAsGroup": USER} if _is_brought(revision.model) else {}),
        },
        **({"initContainers": before} if (before := _before(revision, images)) else {}),
        "containers": [_container(revision, images, cached)],
        "volumes": [
            *({"name": name, "emptyDir": _medium(name)} for name in _volumes(revision.model)),
            *([_cache_token()] if cached else []),
        ],
    }


def _spread(key: RevisionKey, topology_keys: Sequence[str]) -> Json:
    """Evenly, and never at the price of a pod that waits: one node holds them all if it is the only one."""
    return {
        "topologySpreadConstraints": [
            {
                "maxSkew": MAX_SKEW,
                "topologyKey": topology_key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels_of(key)},
            }
            for topology_key in topology_keys
        ]
    }


def _container(revision: Revision, images: Images, model_cache: str) -> Json:
    model = revision.model
    runtime = _runtime(revision)
    launch = Launch(
        model=model,
        model_folder=_folder(model),
        python=Path("{python}"),
        host="0.0.0.0",  # noqa: S104 - a pod's own network; who reaches it is a NetworkPolicy's
        port=model.custom.port or PORT,
        stages_path=Path(TMP, "stages"),
        grpc_port=GRPC_PORT if runtime.grpc_port else 0,
        metrics_port=METRICS_PORT if runtime.metrics_port else 0,
        called=(revision.key.endpoint.name, str(revision.key.endpoint)),
        stock_image=_is_brought(model),
    )
    command = runtime.command(launch)
    if _brings(model):
        command = (*_prepare(model), *command)
    cached = {cache_words.URL_VARIABLE: model_cache} if model_cache else {}
    environment = runtime.environment(launch) | _whereabouts(model) | cached | dict(model.env)
    mounts: list[Json] = [{"name": name, "mountPath": path} for name, path in _volumes(model).items()]
    if model_cache:
        mounts.append({"name": CACHE_VOLUME, "mountPath": cache_words.TOKEN_FOLDER, "readOnly": True})
    return {
        "name": CONTAINER,
        "image": _image(revision, images),
        **({"command": list(command)} if command else {}),
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        **({"envFrom": [{"secretRef": {"name": model.secret}}]} if model.secret else {}),
        "ports": [{"name": name, "containerPort": port} for name, port in _ports(launch).items()],
        "resources": _resources(revision),
        "readinessProbe": {
            "httpGet": {"path": runtime.ready_path, "port": launch.port},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": _pre_stop(images)},
        "securityContext": LOCKED,
        "volumeMounts": mounts,
    }


def _ports(launch: Launch) -> dict[str, int]:
    """By name: where its pods are asked is read from here."""
    found = {HTTP: launch.port, GRPC: launch.grpc_port, METRICS: launch.metrics_port}
    return {name: port for name, port in found.items() if port}


def _brings(model: ModelSpec) -> bool:
    """Whether the pod brings its model: the others' images have theirs."""
    return model.runtime in IN_THE_MODELS_ENVIRONMENT


def _is_brought(model: ModelSpec) -> bool:
    """Whether another container of the pod brings its model: the server is in an image of its makers."""
    return not _brings(model) and model.runtime != CUSTOM.name


def _folder(model: ModelSpec) -> Path:
    if _is_brought(model):
        return BROUGHT
    return Path("{model}") if _brings(model) else MODEL_FOLDER


def _from(model: ModelSpec) -> tuple[str, ...]:
    uri = model.source.resolved_uri or model.source.uri
    return (*PREPARE, "--uri", uri, "--home", f"{HOME}/home")


def _prepare(model: ModelSpec) -> tuple[str, ...]:
    return (*_from(model), "--env-manager", model.env_manager, "--")


def _before(revision: Revision, images: Images) -> list[Json]:
    """The containers that start before the model's: what holds the pod, and what brings its model."""
    found = [_hold(images[HOLD_IMAGE], revision)] if HOLD_IMAGE in images else []
    return found + ([_bring(revision, images)] if _is_brought(revision.model) else [])


def _bring(revision: Revision, images: Images) -> Json:
    model = revision.model
    image = images.get(BRING_IMAGE)
    if not image:
        raise Failed(
            f"there is no image for the runtime `{BRING_IMAGE}`",
            where=str(revision.key),
            hint=f"give one to the control plane: it brings the models of `{model.runtime}`",
        )
    environment = _whereabouts(model) | dict(model.env)
    return {
        "name": BRING,
        "image": image,
        "command": [*_from(model), "--link", str(BROUGHT)],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        **({"envFrom": [{"secretRef": {"name": model.secret}}]} if model.secret else {}),
        "resources": _resources(revision, extended=False),
        "securityContext": LOCKED,
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in _volumes(model).items()],
    }


def _whereabouts(model: ModelSpec) -> dict[str, str]:
    """What the pod is told of the tracking server, and where it can write; of others nothing."""
    if _is_brought(model):
        found = {"USER": "trimtab", "LOGNAME": "trimtab"}  # there is nobody of that number in such images
    elif not _brings(model):
        return {}
    else:
        found = {}
    found |= {"HOME": TMP, "MPLCONFIGDIR": f"{TMP}/matplotlib", "UV_CACHE_DIR": f"{HOME}/uv"}
    server = model.tracking_uri or model.source.asked
    return found | ({"MLFLOW_TRACKING_URI": server} if server.startswith(("http://", "https://")) else {})


def _volumes(model: ModelSpec) -> dict[str, str]:
    """The only places that a pod can write to, and where it finds them."""
    brought = {"model": HOME, "shm": SHARED_MEMORY} if _is_brought(model) else {}
    return {"tmp": TMP} | ({"model": HOME} if _brings(model) else brought)


def _medium(volume: str) -> Json:
    return {"medium": "Memory"} if volume == "shm" else {}


def _cache_token() -> Json:
    """A token that the cache takes and the API server does not."""
    wanted = {
        "audience": cache_words.AUDIENCE,
        "path": cache_words.TOKEN_FILE,
        "expirationSeconds": CACHE_TOKEN_S,
    }
    return {"name": CACHE_VOLUME, "projected": {"sources": [{"serviceAccountToken": wanted}]}}


def _placement(said: Placement) -> Json:
    found: Json = {}
    if said.node_selector:
        found["nodeSelector"] = dict(said.node_selector)
    if said.tolerations:
        found["tolerations"] = [
            {name: value for name, value in asdict(each).items() if value} for each in said.tolerations
        ]
    return found


def _pre_stop(images: Images) -> Json:
    """What the kubelet waits for before it tells the server to end. Neither needs a shell in its image."""
    if HOLD_IMAGE in images:
        return {"httpGet": {"path": "/hold", "port": HOLD_PORT}}
    return {"sleep": {"seconds": UNHELD_S}}


def _hold(image: str, revision: Revision) -> Json:
    """A sidecar, as Kubernetes knows them: it starts before the model and ends after it."""
    little = {"cpu": "20m", "memory": "16Mi"}
    return {
        "name": HOLD,
        "image": image,
        "restartPolicy": "Always",
        "env": [
            {"name": "PORT", "value": str(HOLD_PORT)},
            {"name": "HOLD_FOR", "value": f"{hold_s(revision)}s"},
        ],
        "ports": [{"name": HOLD, "containerPort": HOLD_PORT}],
        "resources": {"requests": little, "limits": little},
        "securityContext": LOCKED,
    }


def _runtime(revision: Revision) -> Runtime:
    runtime = RUNTIMES[revision.model.runtime]
    return runtime.adapted(runtime, revision.model)


def _image(revision: Revision, images: Images) -> str:
    model = revision.model
    image = model.custom.image or images.get(model.runtime, "")
    if not image:
        hint = "give custom.image, or an image for this runtime to the control plane"
        raise Failed(
            f"there is no image for the runtime `{model.runtime}`", where=str(revision.key), hint=hint
        )
    return image


def _resources(revision: Revision, *, extended: bool = True) -> Json:
    """What a pod may use is also what it asks for: a node is never promised twice."""
    said = revision.model.resources
    what = {"cpu": f"{round(said.cpu * 1_000)}m"}
    if said.memory_bytes:
        what["memory"] = str(said.memory_bytes)
    what |= {name: str(count) for name, count in said.extended if extended}
    return {"requests": what, "limits": what}
