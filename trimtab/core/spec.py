"""What a user asks for: an endpoint's spec. Lists from the first day; what is not possible yet is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from trimtab.core.errors import Problem
from trimtab.core.protocol import Protocol

CONCURRENCY_MAX = 100_000  # far above what one revision can use; a typing error is likelier than a need
PODS_MAX = 10_000
START_TIMEOUT_MAX_S = 3_600.0
REQUEST_TIMEOUT_MAX_S = 3_600.0
PORT_MAX = 65_535
EXTENDED_MAX = 1_024  # of one resource, for one pod
TOLERATION_OPERATORS = ("Equal", "Exists")
TOLERATION_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
ENV_MANAGERS = {"uv": "an environment of its own", "local": "trimtab's own"}
IN_THE_MODELS_ENVIRONMENT = frozenset({"mlflow"})  # runtimes that load the model into their own Python

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_EXTENDED = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NATIVE = re.compile(r"requests\..*|.*kubernetes\.io/.*")  # resources that are Kubernetes' own
_SECRET = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SECRET_LENGTH_MAX = 253
_PATH = re.compile(r"/[!-~]*")
_SERVER = re.compile(r"https?://[A-Za-z0-9\[][!-~]*")


@dataclass(frozen=True)
class ConcurrencyRange:
    """The user's range in concurrent requests (in flight plus queued), both ends included."""

    min: int = 1
    max: int = 64


@dataclass(frozen=True)
class Resources:
    """What one pod may use. `memory_bytes` 0: no limit of its own, the machine's guard still holds.

    `extended` are Kubernetes' extended resources, whole ones: `nvidia.com/gpu`.
    """

    cpu: float = 1.0
    memory_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Toleration:
    """A taint of nodes that does not keep pods away, as Kubernetes has it."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


@dataclass(frozen=True)
class Placement:
    """On which nodes of a cluster pods may be. Not for one machine."""

    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a model came from, as resolved at the user's side. Immutable once recorded.

    `uri` as written; `resolved_uri` with an alias or run replaced by what it meant then; `digest`
    is `sha256:…` over the files, and names the folder in the cache; `asked` the server that answered.
    """

    uri: str
    resolved_uri: str = ""
    version: str = ""
    alias: str = ""
    digest: str = ""
    asked: str = ""
    resolved_at_s: float = 0.0


@dataclass(frozen=True)
class Custom:
    """A user's own server: what starts it, and what it speaks. Only for the runtime `custom`.

    `command` or `image`, not both. `protocols` are the values of `Protocol`; `ready_path` answers 200 once
    requests can come, empty for what is usual with the first of its protocols. `port` is where an image's
    server listens whatever it is told; 0: where it is told to.
    """

    command: tuple[str, ...] = ()
    image: str = ""
    protocols: tuple[str, ...] = (Protocol.INVOCATIONS.value,)
    ready_path: str = ""
    port: int = 0


@dataclass(frozen=True)
class ModelSpec:
    """One model of an endpoint."""

    name: str
    source: Source
    runtime: str = "mlflow"
    resources: Resources = Resources()
    concurrency: ConcurrencyRange = ConcurrencyRange()
    env: tuple[tuple[str, str], ...] = ()
    custom: Custom = Custom()
    env_manager: str = "uv"  # who makes the environment of its pods: see ENV_MANAGERS
    start_timeout_s: float = 300.0  # a 13 GB model from a cold disk; a hang is noticed all the same
    tracking_uri: str = ""  # the MLflow server that knows the URI; empty: that of the environment
    secret: str = ""  # a Secret of Kubernetes whose keys are variables of the pod
    placement: Placement = Placement()


@dataclass(frozen=True)
class TrafficShare:
    """`percent` of the endpoint's requests go to the model called `model`."""

    model: str
    percent: int


@dataclass(frozen=True)
class EndpointSpec:
    """All that a user may say of an endpoint. Replica counts and thresholds are not among it."""

    models: tuple[ModelSpec, ...]
    traffic: tuple[TrafficShare, ...] = ()
    max_pods: int = 0  # 0: the range and the machine are the only ceilings
    request_timeout_s: float = 300.0  # Envoy's own 15 s would fail requests that wait out a spike


def with_defaults(endpoint_name: str, spec: EndpointSpec) -> EndpointSpec:
    """The spec with its optional parts filled in: the model's name, all traffic to the one model."""
    models = tuple(m if m.name else replace(m, name=endpoint_name) for m in spec.models)
    traffic = spec.traffic
    if not traffic and len(models) == 1:
        traffic = (TrafficShare(models[0].name, 100),)
    return replace(spec, models=models, traffic=traffic)


def spec_problems(spec: EndpointSpec, runtimes: frozenset[str]) -> tuple[Problem, ...]:
    """Everything wrong with a spec (after `with_defaults`); `runtimes` are the known runtimes' names."""
    found: list[Problem] = []
    if not spec.models:
        found.append(Problem("models", "is empty", "name one model, e.g. models: [{uri: models:/iris/1}]"))
    if len(spec.models) > 1:
        hint = "deploy each model as an endpoint of its own"
        found.append(Problem("models", "more than one model per endpoint is not supported yet", hint))
    for index, model in enumerate(spec.models):
        found += _model_problems(f"models[{index}]", model, runtimes)
    found += _traffic_problems(spec)
    if not 0 <= spec.max_pods <= PODS_MAX:
        found.append(Problem("max_pods", f"is {spec.max_pods}", f"0 (no ceiling) to {PODS_MAX}"))
    if not 0 < spec.request_timeout_s <= REQUEST_TIMEOUT_MAX_S:
        hint = f"more than 0 and at most {REQUEST_TIMEOUT_MAX_S:.0f} seconds"
        found.append(Problem("request_timeout_s", f"is {spec.request_timeout_s:g}", hint))
    return tuple(found)


def _model_problems(where: str, model: ModelSpec, runtimes: frozenset[str]) -> list[Problem]:
    found: list[Problem] = []
    if not model.source.uri:
        hint = "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/…, a path, s3://…"
        found.append(Problem(f"{where}.uri", "is empty", hint))
    if model.runtime not in runtimes:
        known = ", ".join(sorted(runtimes))
        found.append(
            Problem(f"{where}.runtime", f"`{model.runtime}` is not a runtime here", f"known: {known}")
        )
    found += _tracking_problems(f"{where}.tracking_uri", model.tracking_uri)
    if model.secret and (len(model.secret) > _SECRET_LENGTH_MAX or not _SECRET.fullmatch(model.secret)):
        hint = "that of one in the endpoint's namespace, of a-z, 0-9, - and ., for example mlflow"
        found.append(Problem(f"{where}.secret_ref.name", f"`{model.secret}` is no name of a Secret", hint))
    found += _custom_problems(f"{where}.custom", model)
    found += _env_manager_problems(f"{where}.env_manager", model)
    found += _range_problems(f"{where}.concurrency", model.concurrency)
    if not 0 < model.resources.cpu <= 1024:
        hint = "cores of one pod, e.g. 0.5, 1 or 4"
        found.append(Problem(f"{where}.resources.cpu", f"is {model.resources.cpu:g}", hint))
    if model.resources.memory_bytes and model.resources.memory_bytes < 32 << 20:
        hint = "at least 32Mi; leave it out for no limit of its own"
        found.append(Problem(f"{where}.resources.memory", "is too small to start anything", hint))
    found += _extended_problems(f"{where}.resources.extended", model.resources)
    found += _placement_problems(where, model.placement)
    if not 0 < model.start_timeout_s <= START_TIMEOUT_MAX_S:
        hint = f"more than 0 and at most {START_TIMEOUT_MAX_S:.0f} seconds"
        found.append(Problem(f"{where}.start_timeout_s", f"is {model.start_timeout_s:g}", hint))
    for name, value in model.env:
        if not name or "=" in name or "\0" in name + value:
            hint = "NAME: VALUE, the name without `=`, neither with a zero byte"
            found.append(Problem(f"{where}.env", f"{name!r} cannot be set in an environment", hint))
    return found


def _tracking_problems(where: str, tracking_uri: str) -> list[Problem]:
    if not tracking_uri:
        return []
    if "@" in tracking_uri:
        hint = "give it as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD: by secret_ref on Kubernetes"
        return [Problem(where, "has a user or a password in it, which many may read", hint)]
    if not _SERVER.fullmatch(tracking_uri):
        hint = "for example http://mlflow.ml:5000"
        return [Problem(where, f"`{tracking_uri}` is not a server's address", hint)]
    return []


def _extended_problems(where: str, resources: Resources) -> list[Problem]:
    found: list[Problem] = []
    for name, count in resources.extended:
        if not _EXTENDED.fullmatch(name) or _NATIVE.fullmatch(name):
            found.append(Problem(where, f"`{name}` is no extended resource", "for example nvidia.com/gpu: 1"))
        elif not 1 <= count <= EXTENDED_MAX:
            found.append(Problem(where, f"{name} is {count}", f"whole ones of one pod, 1 to {EXTENDED_MAX}"))
    return found


def _placement_problems(where: str, placement: Placement) -> list[Problem]:
    found: list[Problem] = []
    for key, value in placement.node_selector:
        if not LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            hint = "a label of nodes, for example node.kubernetes.io/instance-type: g5.xlarge"
            found.append(Problem(f"{where}.node_selector", f"`{key}: {value}` is no label", hint))
    for index, each in enumerate(placement.tolerations):
        if told := _toleration_problem(each):
            found.append(Problem(f"{where}.tolerations[{index}]", *told))
    return found


def _toleration_problem(said: Toleration) -> tuple[str, str] | None:
    """What is wrong with one, and what to do."""
    if said.operator not in TOLERATION_OPERATORS:
        return f"operator `{said.operator}` is not known", f"known: {', '.join(TOLERATION_OPERATORS)}"
    if said.effect and said.effect not in TOLERATION_EFFECTS:
        return f"effect `{said.effect}` is not known", f"known: {', '.join(TOLERATION_EFFECTS)}"
    if said.operator == "Exists" and said.value:
        return "has a value, which Exists does not look at", "leave it out, or say operator: Equal"
    if said.operator == "Equal" and not said.key:
        return "has no key", "name the taint's, or say operator: Exists to tolerate any"
    if (said.key and not LABEL_KEY.fullmatch(said.key)) or not _LABEL_VALUE.fullmatch(said.value):
        return f"`{said.key}={said.value}` is no taint", "for example key: nvidia.com/gpu, operator: Exists"
    return None


def _env_manager_problems(where: str, model: ModelSpec) -> list[Problem]:
    if model.env_manager not in ENV_MANAGERS:
        hint = ", ".join(f"{name} ({what})" for name, what in ENV_MANAGERS.items())
        return [Problem(where, f"`{model.env_manager}` is not known here", hint)]
    if model.env_manager != ModelSpec.env_manager and model.runtime not in IN_THE_MODELS_ENVIRONMENT:
        hint = "its server's environment is its own: say uv (--env-manager uv), or leave it out"
        return [Problem(where, f"`{model.env_manager}` is not for `{model.runtime}`", hint)]
    return []


def _custom_problems(where: str, model: ModelSpec) -> list[Problem]:
    custom = model.custom
    if model.runtime != "custom":
        hint = "say runtime: custom (--runtime custom), or leave it out"
        return [] if custom == Custom() else [Problem(where, f"is not for `{model.runtime}`", hint)]
    found: list[Problem] = []
    if bool(custom.command) == bool(custom.image):
        told = "has both a command and an image" if custom.image else "has neither a command nor an image"
        found.append(Problem(where, told, "give one: --command 'python3 server.py --port {port}'"))
    if any("\0" in word for word in custom.command):
        found.append(Problem(f"{where}.command", "has a zero byte in it", "leave it out"))
    known = [protocol.value for protocol in Protocol]
    for name in custom.protocols:
        if name not in known:
            hint = f"known: {', '.join(known)}"
            found.append(Problem(f"{where}.protocols", f"`{name}` is not a protocol here", hint))
    if not custom.protocols or set(custom.protocols) == {Protocol.OPEN_INFERENCE_GRPC.value}:
        hint = "name one that is spoken over HTTP too: it is asked there whether it is ready"
        found.append(Problem(f"{where}.protocols", "names none that is spoken over HTTP", hint))
    if custom.ready_path and not _PATH.fullmatch(custom.ready_path):
        hint = "for example /ping or /health/ready"
        found.append(Problem(f"{where}.ready_path", f"`{custom.ready_path}` is not a path", hint))
    if custom.port and not custom.image:
        hint = "write {port} or $PORT into the command: each pod is given one"
        found.append(Problem(f"{where}.port", "is for an image alone", hint))
    elif not 0 <= custom.port <= PORT_MAX:
        found.append(Problem(f"{where}.port", f"{custom.port} is no port", f"a number from 1 to {PORT_MAX}"))
    return found


def _range_problems(where: str, wanted: ConcurrencyRange) -> list[Problem]:
    text = f"{wanted.min}..{wanted.max}"
    if wanted.min < 1:
        # Without the admission module no request can wait for a first pod: DESIGN, section Envoy.
        hint = "scale to zero is not supported yet; use 1 or more"
        return [Problem(where, f"{text}: the minimum is below 1", hint)]
    if wanted.max < wanted.min:
        return [Problem(where, f"{text} is reversed", f"write {wanted.max}..{wanted.min}")]
    if wanted.max > CONCURRENCY_MAX:
        return [Problem(where, f"{text}: the maximum is too large", f"at most {CONCURRENCY_MAX}")]
    return []


def _traffic_problems(spec: EndpointSpec) -> list[Problem]:
    found: list[Problem] = []
    known = [model.name for model in spec.models]
    for index, share in enumerate(spec.traffic):
        if share.model not in known:
            hint = f"the spec's models: {', '.join(known) or 'none'}"
            found.append(Problem(f"traffic[{index}].model", f"`{share.model}` is not in the spec", hint))
        if share.model in [earlier.model for earlier in spec.traffic[:index]]:
            hint = "give each model one share"
            found.append(Problem(f"traffic[{index}].model", f"`{share.model}` has a share already", hint))
        if not 0 <= share.percent <= 100:
            found.append(Problem(f"traffic[{index}].percent", f"is {share.percent}", "0 to 100"))
    total = sum(share.percent for share in spec.traffic)
    if spec.traffic and total != 100:
        found.append(Problem("traffic", f"the percents add up to {total}", "make them add up to 100"))
    return found
