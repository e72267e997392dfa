"""What Kubernetes must know of the fields beyond their types: bounds, defaults, and rules with remedies.

The bounds are those of `core.spec`. Bounds of length have no other reason than that the API server asks for
them: it has to know what a rule may cost.
"""

from __future__ import annotations

from typing import Any

from trimtab.core.names import NAME_LENGTH_MAX, RESERVED_NAMES
from trimtab.core.protocol import Protocol
from trimtab.core.spec import (
    CONCURRENCY_MAX,
    ENV_MANAGERS,
    EXTENDED_MAX,
    IN_THE_MODELS_ENVIRONMENT,
    PODS_MAX,
    PORT_MAX,
    REQUEST_TIMEOUT_MAX_S,
    START_TIMEOUT_MAX_S,
    TOLERATION_EFFECTS,
    TOLERATION_OPERATORS,
    ConcurrencyRange,
    EndpointSpec,
    ModelSpec,
    Resources,
    Toleration,
)
from trimtab.runtime.catalog import RUNTIMES

Json = dict[str, Any]

TEXT_MAX = 2_048
LIST_MAX = 64


def rule(holds: str, field: str, message: str, remedy: str) -> Json:
    """A rule of the schema, as CEL. The API server says the field; `message` what is wrong with it."""
    whole = {"rule": holds, "reason": "FieldValueInvalid", "message": f"{message}; {remedy}"}
    return whole | ({"fieldPath": field} if field else {})


def _within(field: str, least: int, most: float, remedy: str) -> Json:
    holds = f"!has(self.{field}) || (self.{field} >= {least} && self.{field} <= {most:.0f})"
    return rule(holds, f".{field}", "is out of bounds", remedy)


def _text(longest: int = TEXT_MAX) -> Json:
    return {"maxLength": longest}


def _quantity(example: str) -> Json:
    return {
        "type": None,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "maxLength": 40,
        "description": example,
    }


def _seconds(default: float, most: float) -> Json:
    return {
        "type": "integer",
        "format": "int32",
        "default": int(default),
        "description": f"1 to {most:.0f} seconds.",
    }


_LEFT_OUT: Json = {"left_out": True}
_SAID_CPU = "has(self.cpu)"
_CPU = "(type(self.cpu) == int ? quantity(string(self.cpu)) : quantity(self.cpu))"
_SAID_MEMORY = "has(self.memory)"
_MEMORY = "(type(self.memory) == int ? quantity(string(self.memory)) : quantity(self.memory))"
_PROTOCOLS = [protocol.value for protocol in Protocol]
_LABEL_KEY = "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_LABEL_VALUE = "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"
_EXTENDED = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_SECRET = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"
_GRPC = Protocol.OPEN_INFERENCE_GRPC.value


def _is_quantity(field: str) -> str:
    return f"(type(self.{field}) == int || isQuantity(self.{field}))"


SPEC: dict[str, Json] = {
    "Spec": {
        "description": None,
        "x-kubernetes-validations": [
            rule(
                "has(self.models) && size(self.models) > 0",
                ".models",
                "is empty",
                'name one model, for example models: [{uri: "models:/iris/1"}]',
            ),
            rule(
                "!has(self.models) || size(self.models) <= 1",
                ".models",
                "more than one model per endpoint is not supported yet",
                "apply each model as an endpoint of its own",
            ),
            rule(
                "!has(self.traffic) || size(self.traffic) == 0"
                " || self.traffic.map(share, share.percent).sum() == 100",
                ".traffic",
                "the percents do not add up to 100",
                "make them",
            ),
            _within("maxPods", 0, PODS_MAX, f"use 0 (no ceiling) to {PODS_MAX}"),
            _within(
                "requestTimeoutSeconds", 1, REQUEST_TIMEOUT_MAX_S, f"use 1 to {REQUEST_TIMEOUT_MAX_S:.0f}"
            ),
        ],
    },
    "Spec.models": {"maxItems": 16, "x-kubernetes-list-type": "atomic"},
    "Spec.traffic": {
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["model"],
    },
    "Spec.max_pods": {"default": EndpointSpec.max_pods},
    "Spec.request_timeout_s": _seconds(EndpointSpec.request_timeout_s, REQUEST_TIMEOUT_MAX_S),
    "Traffic": {
        "required": ["model", "percent"],
        "x-kubernetes-validations": [_within("percent", 0, 100, "use 0 to 100")],
    },
    "Traffic.model": _text(NAME_LENGTH_MAX),
    "Model": {
        "x-kubernetes-validations": [
            rule(
                "has(self.uri) && size(self.uri) > 0",
                ".uri",
                "is empty",
                "give models:/NAME/VERSION, models:/NAME@ALIAS, runs:/… or s3://…",
            ),
            rule(
                "!has(self.custom) || !has(self.runtime) || self.runtime == 'custom'",
                ".custom",
                "is for the runtime `custom` only",
                "say runtime: custom, or leave it out",
            ),
            rule(
                "!has(self.runtime) || self.runtime != 'custom' || has(self.custom)",
                ".runtime",
                "is custom, and there is no `custom`",
                "say how the server is started: custom: {image: …} or custom: {command: […]}",
            ),
            rule(
                "!has(self.env) || self.env.all(name, name.matches('^[ -<>-~]+$'))",
                ".env",
                "has a name that cannot be set in an environment",
                "write NAME: VALUE, the name not empty, of ASCII and without `=`",
            ),
            rule(
                f"!has(self.envManager) || self.envManager == '{ModelSpec.env_manager}' || (!has(self.custom)"
                f" && (!has(self.runtime) || self.runtime in {sorted(IN_THE_MODELS_ENVIRONMENT)}))",
                ".envManager",
                "is not for this runtime",
                "say uv, or leave it out: its server's environment is its own",
            ),
            rule(
                "!has(self.trackingURI) || self.trackingURI == '' || (isURL(self.trackingURI)"
                " && url(self.trackingURI).getScheme() in ['http', 'https']"
                " && !self.trackingURI.contains('@'))",
                ".trackingURI",
                "is not the address of a server, or has a password in it",
                "use for example http://mlflow.ml:5000, and secretRef for credentials",
            ),
            _within("startTimeoutSeconds", 1, START_TIMEOUT_MAX_S, f"use 1 to {START_TIMEOUT_MAX_S:.0f}"),
        ],
    },
    "Model.name": _text(NAME_LENGTH_MAX),
    "Model.uri": _text(),
    "Model.runtime": {"enum": sorted(RUNTIMES)},
    "Model.resources": {"default": {}},
    "Model.concurrency": {"default": {}},
    "Model.env": {"maxProperties": 256, "additionalProperties": {"type": "string", "maxLength": 32_768}},
    "Model.env_manager": {"enum": sorted(ENV_MANAGERS), "default": ModelSpec.env_manager},
    "Model.start_timeout_s": _seconds(ModelSpec.start_timeout_s, START_TIMEOUT_MAX_S),
    "Model.tracking_uri": _text(),
    "SecretRef": {
        "required": ["name"],
        "description": None,
        "x-kubernetes-validations": [
            rule(
                f"self.name.matches('{_SECRET}')",
                ".name",
                "is no name of a Secret",
                "use that of one in the endpoint's namespace, of a-z, 0-9, - and ., for example mlflow",
            )
        ],
    },
    "SecretRef.name": _text(253) | {"minLength": 1},
    "Model.node_selector": {
        "maxProperties": LIST_MAX,
        "additionalProperties": {"type": "string", "maxLength": 63},
        "x-kubernetes-validations": [
            rule(
                f"self.all(key, key.matches('{_LABEL_KEY}') && self[key].matches('{_LABEL_VALUE}'))",
                "",
                "has what is no label of a node",
                "use for example node.kubernetes.io/instance-type: g5.xlarge",
            )
        ],
    },
    "Model.tolerations": {"maxItems": 16, "x-kubernetes-list-type": "atomic"},
    "Toleration": {
        "x-kubernetes-validations": [
            rule(
                "(has(self.operator) && self.operator == 'Exists') || (has(self.key) && self.key != '')",
                ".key",
                "is empty",
                "name the taint's, or say operator: Exists to tolerate any",
            ),
            rule(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                ".value",
                "is there, and Exists does not look at it",
                "leave it out, or say operator: Equal",
            ),
        ]
    },
    "Toleration.key": {"maxLength": 317, "pattern": f"^$|{_LABEL_KEY}"},
    "Toleration.operator": {"enum": list(TOLERATION_OPERATORS), "default": Toleration.operator},
    "Toleration.value": {"maxLength": 63, "pattern": _LABEL_VALUE},
    "Toleration.effect": {"enum": list(TOLERATION_EFFECTS)},
    "Model.source": _LEFT_OUT,  # written by whoever resolves a model, never by hand
    "Resources": {
        "x-kubernetes-validations": [
            rule(
                f"!{_SAID_CPU} || ({_is_quantity('cpu')} && {_CPU}.isGreaterThan(quantity('0'))"
                f" && {_CPU}.compareTo(quantity('1024')) <= 0)",
                ".cpu",
                "is not a number of cores",
                'use cores of one pod up to 1024, for example 1, "0.5" or 500m',
            ),
            rule(
                f"!{_SAID_MEMORY} || ({_is_quantity('memory')}"
                f" && {_MEMORY}.compareTo(quantity('32Mi')) >= 0)",
                ".memory",
                "is too small, or not an amount of memory",
                "use at least 32Mi, for example 512Mi or 2G; leave it out for no limit of its own",
            ),
        ]
    },
    "Resources.cpu": _quantity('Cores of one pod: 1, "0.5" or 500m.') | {"default": str(int(Resources.cpu))},
    "Resources.memory": _quantity("Of one pod: 512Mi or 2G; default: no limit of its own."),
    "Resources.extended": {
        "maxProperties": 16,
        "additionalProperties": {
            "type": "integer",
            "format": "int32",
            "minimum": 1,
            "maximum": EXTENDED_MAX,
        },
        "x-kubernetes-validations": [
            rule(
                f"self.all(name, name.matches('{_EXTENDED}') && !name.contains('kubernetes.io/')"
                " && !name.startsWith('requests.'))",
                "",
                "has a name that is no extended resource",
                'use for example "nvidia.com/gpu": 1',
            )
        ],
    },
    "Concurrency": {
        "x-kubernetes-validations": [
            rule(
                "!has(self.min) || self.min >= 1",
                ".min",
                "is below 1",
                "use 1 or more: scale to zero is not supported yet",
            ),
            rule(
                "!has(self.max) || self.max >= (has(self.min) ? self.min : 1)",
                ".max",
                "is below the minimum",
                "write the smaller number as min",
            ),
            rule(
                f"(has(self.max) ? self.max : has(self.min) ? self.min : 1) <= {CONCURRENCY_MAX}",
                ".max",
                "is too large",
                f"use at most {CONCURRENCY_MAX}",
            ),
        ]
    },
    "Concurrency.min": {"default": ConcurrencyRange.min},
    "Concurrency.max": {"description": f"Default: {ConcurrencyRange.max}, or the minimum if that is larger."},
    "Custom": {
        "x-kubernetes-validations": [
            rule(
                "(has(self.command) && size(self.command) > 0) != (has(self.image) && size(self.image) > 0)",
                ".image",
                "there must be one of command and image, and not both",
                'give image: REGISTRY/NAME:TAG, or command: [python3, server.py, --port, "{port}"]',
            ),
            rule(
                f"!has(self.protocols) || self.protocols.exists(name, name != '{_GRPC}')",
                ".protocols",
                "names none that is spoken over HTTP",
                "add one: the server is asked there whether it is ready",
            ),
            rule(
                "!has(self.port) || self.port == 0 || (has(self.image) && size(self.image) > 0)",
                ".port",
                "is for an image alone",
                "write {port} or $PORT into the command: each pod is given one",
            ),
            rule(
                "!has(self.readyPath) || self.readyPath == '' || self.readyPath.matches('^/[!-~]*$')",
                ".readyPath",
                "is not a path",
                "use for example /ping or /health/ready",
            ),
        ]
    },
    "Custom.command": {"maxItems": LIST_MAX, "x-kubernetes-list-type": "atomic"},
    "Custom.command[]": _text(),
    "Custom.image": _text(),
    "Custom.protocols": {"maxItems": len(_PROTOCOLS), "x-kubernetes-list-type": "set"},
    "Custom.protocols[]": {"enum": _PROTOCOLS},
    "Custom.ready_path": _text(),
    "Custom.port": {"minimum": 0, "maximum": PORT_MAX},
}

WHOLE = [
    rule(
        f"size(self.metadata.name) <= {NAME_LENGTH_MAX}"
        " && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "",  # the API server takes no path into the metadata
        "metadata.name is not valid",
        f"use at most {NAME_LENGTH_MAX} of a-z, 0-9 and -, beginning and ending with a letter or digit",
    ),
    rule(
        f"!(self.metadata.name in {sorted(RESERVED_NAMES)})",
        "",  # the API server takes no path into the metadata
        "metadata.name is reserved: it is a path of OpenAI's clients",
        "choose another name, for example with -model after it",
    ),
    rule(
        "!has(self.spec.traffic) || !has(self.spec.models) || self.spec.traffic.all(share,"
        " self.spec.models.exists(model,"
        " (has(model.name) && model.name != '' ? model.name : self.metadata.name) == share.model))",
        ".spec.traffic",
        "names a model that is not in the spec",
        "use the name of one of spec.models; without a name it is called as the endpoint",
    ),
]

# The status: what the control API tells, but the pods themselves, of which there may be thousands.
STATUS: dict[str, Json] = {
    "Status": {"description": None},
    "Status.log_tail": {"maxItems": 200, "x-kubernetes-list-type": "atomic"},
    "Status.stages": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    "Status.revisions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    "Status.warnings": {"x-kubernetes-list-type": "atomic"},
    "Stage": {"required": ["name"]},
    "Revision": {"required": ["number"]},
    "Revision.pods": _LEFT_OUT,
}

_CONDITION: Json = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string", "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1_024},
        "message": {"type": "string", "maxLength": 32_768},
    },
}

# What only Kubernetes has: conditions, and what `kubectl get` shows.
STATUS_MORE: Json = {
    "conditions": {
        "type": "array",
        "description": "Ready, Progressing and Degraded.",
        "items": _CONDITION,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    },
    "pods": {"type": "string", "description": "Ready and wanted pods of the serving revision: `3/4`."},
    "record": {
        "type": "string",
        "maxLength": 262_144,
        "description": "What the control plane remembers of its revisions; not for people, nor to be edited.",
    },
    "targetConcurrency": {
        "type": "integer",
        "format": "int32",
        "description": "How many requests one pod of the serving revision may hold in flight.",
    },
}

COLUMNS = [
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("URL", "string", ".status.url"),
    ("Model", "string", ".spec.models[0].uri"),
    ("Pods", "string", ".status.pods"),
    ("In flight", "number", ".status.load.inFlight"),
    ("Queued", "number", ".status.load.queued"),
    ("Target", "integer", ".status.targetConcurrency"),
    ("Age", "date", ".metadata.creationTimestamp"),
]
