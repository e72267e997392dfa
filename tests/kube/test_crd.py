"""The real API server takes good specs, fills in the defaults, and refuses bad ones with a remedy."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import yaml

from tests.kube.words import ENDPOINTS, endpoint
from trimtab.cli.manifest import read_manifests
from trimtab.control.spec_check import check_spec
from trimtab.core.errors import InvalidInput
from trimtab.kube import Api, Json

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd")]

EXAMPLE = Path(__file__).parents[2] / "docs/examples/iris.yaml"
STRICT = {"fieldValidation": "Strict"}  # as kubectl asks for


def model(**more: Any) -> Json:
    return {"models": [{"uri": "models:/iris/3"} | more]}


CUSTOM = {"image": "registry/own:1"}
LONG = "a" * 64

# What is wrong: the spec (or name and spec), the field that is named, and the words of the remedy.
BAD: dict[str, tuple[Any, str, str]] = {
    "no spec": (None, "spec", "Required value"),
    "spec is a list": ([], "spec", "must be of type object"),
    "no models": ({}, "spec.models", "name one model, for example"),
    "models empty": ({"models": []}, "spec.models", "name one model, for example"),
    "models a mapping": ({"models": {"uri": "models:/iris/3"}}, "spec.models.uri", "unknown field"),
    "two models": (
        {"models": [{"uri": "models:/a/1"}, {"uri": "models:/b/1"}]},
        "spec.models",
        "apply each model as an endpoint of its own",
    ),
    "no uri": ({"models": [{"name": "iris"}]}, "spec.models[0].uri", "give models:/NAME/VERSION"),
    "uri empty": (model(uri=""), "spec.models[0].uri", "give models:/NAME/VERSION"),
    "uri a number": (model(uri=3), "spec.models[0].uri", "must be of type string"),
    "runtime unknown": (
        model(runtime="torch"),
        "spec.models[0].runtime",
        'supported values: "custom", "mlflow"',
    ),
    "custom elsewhere": (
        model(runtime="mlflow", custom=CUSTOM),
        "spec.models[0].custom",
        "say runtime: custom, or leave it out",
    ),
    "custom without custom": (model(runtime="custom"), "spec.models[0].runtime", "custom: {image: …}"),
    "neither command nor image": (
        model(custom={}),
        "spec.models[0].custom.image",
        "give image: REGISTRY/NAME:TAG",
    ),
    "command and image": (
        model(custom=CUSTOM | {"command": ["serve"]}),
        "spec.models[0].custom.image",
        "there must be one of command and image, and not both",
    ),
    "protocol unknown": (
        model(custom=CUSTOM | {"protocols": ["soap"]}),
        "spec.models[0].custom.protocols[0]",
        'supported values: "invocations"',
    ),
    "protocol twice": (
        model(custom=CUSTOM | {"protocols": ["openai", "openai"]}),
        "spec.models[0].custom.protocols[1]",
        "Duplicate value",
    ),
    "gRPC alone": (
        model(custom=CUSTOM | {"protocols": ["open-inference-grpc"]}),
        "spec.models[0].custom.protocols",
        "the server is asked there whether it is ready",
    ),
    "ready path": (
        model(custom=CUSTOM | {"readyPath": "ping"}),
        "spec.models[0].custom.readyPath",
        "use for example /ping",
    ),
    "env manager": (
        model(envManager="conda"),
        "spec.models[0].envManager",
        'supported values: "local", "uv"',
    ),
    "env manager of another runtime": (
        model(runtime="vllm", envManager="local"),
        "spec.models[0].envManager",
        "say uv, or leave it out",
    ),
    "env manager of a custom server": (
        model(custom=CUSTOM, envManager="local"),
        "spec.models[0].envManager",
        "say uv, or leave it out",
    ),
    "tracking server without http": (
        model(trackingURI="mlflow:5000"),
        "spec.models[0].trackingURI",
        "use for example http://mlflow.ml:5000",
    ),
    "password in a tracking URI": (
        model(trackingURI="http://me:secret@mlflow.ml:5000"),
        "spec.models[0].trackingURI",
        "secretRef for credentials",
    ),
    "secret without a name": (model(secretRef={}), "spec.models[0].secretRef.name", "Required value"),
    "secret with a name that no Secret has": (
        model(secretRef={"name": "My Secret"}),
        "spec.models[0].secretRef.name",
        "use that of one in the endpoint's namespace",
    ),
    "a resource of Kubernetes' own": (
        model(resources={"extended": {"kubernetes.io/batch-cpu": 1}}),
        "spec.models[0].resources.extended",
        'use for example "nvidia.com/gpu": 1',
    ),
    "a quota's name of GPUs": (
        model(resources={"extended": {"requests.nvidia.com/gpu": 1}}),
        "spec.models[0].resources.extended",
        'use for example "nvidia.com/gpu": 1',
    ),
    "GPUs without a domain": (
        model(resources={"extended": {"gpu": 1}}),
        "spec.models[0].resources.extended",
        'use for example "nvidia.com/gpu": 1',
    ),
    "half a GPU": (
        model(resources={"extended": {"nvidia.com/gpu": 0.5}}),
        "spec.models[0].resources.extended.nvidia.com/gpu",
        "must be of type int",
    ),
    "no GPU": (
        model(resources={"extended": {"nvidia.com/gpu": 0}}),
        "spec.models[0].resources.extended",
        "greater than or equal to 1",
    ),
    "node selector": (
        model(nodeSelector={"a b": "c"}),
        "spec.models[0].nodeSelector",
        "use for example node.kubernetes.io/instance-type",
    ),
    "toleration without a key": (
        model(tolerations=[{"value": "a"}]),
        "spec.models[0].tolerations[0].key",
        "say operator: Exists to tolerate any",
    ),
    "toleration with a value that is not looked at": (
        model(tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "value": "a"}]),
        "spec.models[0].tolerations[0].value",
        "leave it out, or say operator: Equal",
    ),
    "toleration's effect": (
        model(tolerations=[{"key": "a", "effect": "Never"}]),
        "spec.models[0].tolerations[0].effect",
        'supported values: "NoSchedule"',
    ),
    "env a list": (model(env=[{"name": "A", "value": "b"}]), "spec.models[0].env[0].name", "unknown field"),
    "env value a number": (model(env={"A": 1}), "spec.models[0].env.A", "must be of type string"),
    "env name with =": (model(env={"A=B": "c"}), "spec.models[0].env", "without `=`"),
    "env name of other letters": (model(env={"ÄPFEL": "c"}), "spec.models[0].env", "of ASCII"),
    "env name empty": (model(env={"": "c"}), "spec.models[0].env", "write NAME: VALUE"),
    "start timeout 0": (model(startTimeoutSeconds=0), "spec.models[0].startTimeoutSeconds", "use 1 to 3600"),
    "start timeout long": (
        model(startTimeoutSeconds=3601),
        "spec.models[0].startTimeoutSeconds",
        "use 1 to 3600",
    ),
    "start timeout text": (
        model(startTimeoutSeconds="5m"),
        "spec.models[0].startTimeoutSeconds",
        "must be of type integer",
    ),
    "min 0": (
        model(concurrency={"min": 0}),
        "spec.models[0].concurrency.min",
        "scale to zero is not supported yet",
    ),
    "min below 0": (model(concurrency={"min": -1}), "spec.models[0].concurrency.min", "use 1 or more"),
    "range reversed": (
        model(concurrency={"min": 9, "max": 3}),
        "spec.models[0].concurrency.max",
        "write the smaller number as min",
    ),
    "max too large": (
        model(concurrency={"max": 100_001}),
        "spec.models[0].concurrency.max",
        "use at most 100000",
    ),
    "min too large": (
        model(concurrency={"min": 100_001}),
        "spec.models[0].concurrency.max",
        "use at most 100000",
    ),
    "range a number": (model(concurrency=8), "spec.models[0].concurrency", "must be of type object"),
    "cpu 0": (model(resources={"cpu": "0"}), "spec.models[0].resources.cpu", "use cores of one pod"),
    "cpu below 0": (model(resources={"cpu": -1}), "spec.models[0].resources.cpu", "use cores of one pod"),
    "cpu too many": (model(resources={"cpu": 2000}), "spec.models[0].resources.cpu", "up to 1024"),
    "cpu in words": (model(resources={"cpu": "two"}), "spec.models[0].resources.cpu", "for example 1"),
    "cpu a fraction": (
        model(resources={"cpu": 0.5}),
        "spec.models[0].resources.cpu",
        "must be of type",
    ),
    "memory too small": (
        model(resources={"memory": "1Mi"}),
        "spec.models[0].resources.memory",
        "use at least 32Mi",
    ),
    "memory in words": (
        model(resources={"memory": "lots"}),
        "spec.models[0].resources.memory",
        "for example 512Mi",
    ),
    "max pods below 0": (model() | {"maxPods": -1}, "spec.maxPods", "use 0 (no ceiling) to 10000"),
    "max pods too many": (model() | {"maxPods": 10_001}, "spec.maxPods", "use 0 (no ceiling) to 10000"),
    "request timeout 0": (
        model() | {"requestTimeoutSeconds": 0},
        "spec.requestTimeoutSeconds",
        "use 1 to 3600",
    ),
    "traffic to nobody": (
        model() | {"traffic": [{"model": "wine", "percent": 100}]},
        "spec.traffic",
        "use the name of one of spec.models",
    ),
    "traffic twice": (
        model() | {"traffic": [{"model": "iris", "percent": 50}, {"model": "iris", "percent": 50}]},
        "spec.traffic[1]",
        "Duplicate value",
    ),
    "traffic of 90": (
        model() | {"traffic": [{"model": "iris", "percent": 90}]},
        "spec.traffic",
        "the percents do not add up to 100; make them",
    ),
    "traffic above 100": (
        model() | {"traffic": [{"model": "iris", "percent": 101}]},
        "spec.traffic[0].percent",
        "use 0 to 100",
    ),
    "traffic without model": (
        model() | {"traffic": [{"percent": 100}]},
        "spec.traffic[0].model",
        "Required value",
    ),
    "unknown key": (model() | {"replicas": 3}, "spec.replicas", "unknown field"),
    "snake case": (model() | {"max_pods": 3}, "spec.max_pods", "unknown field"),
    "source by hand": (model(source={"digest": "x"}), "spec.models[0].source", "unknown field"),
}

BAD_NAMES = {
    "chat": "choose another name",
    LONG: "use at most 63 of a-z",
    "iris.v2": "use at most 63 of a-z",
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_spec_is_refused_with_field_and_remedy(api: Api, namespace: str, what: str) -> None:
    spec, field, remedy = BAD[what]
    body = endpoint(namespace, "iris", spec)
    if spec is None:
        del body["spec"]
    with pytest.raises(InvalidInput) as refused:
        await api.create(ENDPOINTS.path(namespace), body, STRICT)
    assert field in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_bad_name_is_refused_with_a_remedy(api: Api, namespace: str, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await api.create(ENDPOINTS.path(namespace), endpoint(namespace, name, model()), STRICT)
    assert "metadata.name" in str(refused.value)
    assert BAD_NAMES[name] in str(refused.value)


GOOD: dict[str, Json] = {
    "the least": model(),
    "a range": model(concurrency={"min": 4, "max": 256}),
    "a large minimum alone": model(concurrency={"min": 100}),
    "quantities": model(resources={"cpu": 2, "memory": 1 << 30}),
    "quantities as text": model(resources={"cpu": "500m", "memory": "512Mi"}),
    "an image": model(runtime="custom", custom=CUSTOM | {"protocols": ["openai", "open-inference-grpc"]}),
    "a command, and its runtime not said": model(custom={"command": ["python3", "server.py"]}),
    "traffic by the endpoint's name": model() | {"traffic": [{"model": "iris", "percent": 100}]},
    "traffic by the model's name": model(name="m") | {"traffic": [{"model": "m", "percent": 100}]},
    "everything else": model(
        name="m", runtime="mlflow", env={"A": "b"}, envManager="local", startTimeoutSeconds=3600
    )
    | {"maxPods": 10_000, "requestTimeoutSeconds": 1},
    "a slice of a GPU, on nodes of a kind": model(
        resources={"extended": {"nvidia.com/mig-1g.10gb": 1}},
        nodeSelector={"node.kubernetes.io/instance-type": "g5.xlarge"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    ),
}


@pytest.mark.parametrize("what", GOOD)
async def test_a_good_spec_is_taken(api: Api, namespace: str, what: str) -> None:
    await api.create(ENDPOINTS.path(namespace), endpoint(namespace, "iris", GOOD[what]), STRICT)


ABSENT = object()
MODELS: dict[str, tuple[Any, ...]] = {  # what both can say, with the bounds and what is just beyond them
    "uri": ("models:/iris/3", "models:/iris/3", "models:/iris/3", ""),
    "name": (ABSENT, ABSENT, "m"),
    "runtime": (ABSENT, ABSENT, "mlflow", "custom", "vllm", "torch"),
    "envManager": (ABSENT, ABSENT, "uv", "local", "conda"),
    "env": (ABSENT, ABSENT, {"A": "b"}, {"A=B": "c"}, {"": "c"}),
    "startTimeoutSeconds": (ABSENT, ABSENT, 1, 3_600, 3_601, -1),
    "resources": (
        ABSENT, ABSENT, {"cpu": 1_024}, {"cpu": 1_025}, {"memory": "32Mi"}, {"memory": "31Mi"},
        {"extended": {"nvidia.com/gpu": 1_024}}, {"extended": {"nvidia.com/gpu": 1_025}},
        {"extended": {"gpu": 1}}, {"extended": {"nvidia.com/mig-1g.10gb": 1}},
        {"extended": {"requests.nvidia.com/gpu": 1}}, {"extended": {"a.dev/b": 3}},
    ),
    "nodeSelector": (
        ABSENT, ABSENT, {"a.dev/zone": "b-1"}, {"zone": ""}, {"a b": "c"}, {"a": "c d"}, {"a/b/c": "d"}
    ),
    "tolerations": (
        ABSENT, ABSENT, [{"operator": "Exists"}], [{"key": "a.dev/b", "value": "c", "effect": "NoSchedule"}],
        [{}], [{"key": "a", "operator": "Exists", "value": "c"}], [{"key": "a", "operator": "In"}],
        [{"key": "a", "effect": "Never"}], [{"key": "a b"}], [{"key": "a"}, {"key": "b", "value": "c d"}],
    ),
    "secretRef": (ABSENT, ABSENT, {"name": "mlflow"}, {"name": "a.b-c"}, {"name": "0"}, {"name": "a..b"}),
    "concurrency": (
        ABSENT, ABSENT, {"min": 1, "max": 100_000}, {"max": 100_001}, {"min": 7}, {"min": 7, "max": 6},
        {"min": -1},
    ),
    "custom": (
        ABSENT, ABSENT, {"image": "own:1"}, {"command": ["serve"]}, {"image": "own:1", "command": ["serve"]},
        {"image": "own:1", "protocols": ["open-inference-grpc"]}, {"image": "own:1", "protocols": ["soap"]},
        {"image": "own:1", "protocols": ["openai"], "readyPath": "ping"},
        {"image": "own:1", "readyPath": "/ping"},
    ),
}  # fmt: skip
WHOLES: dict[str, tuple[Any, ...]] = {
    "maxPods": (ABSENT, ABSENT, 0, 10_000, 10_001, -1),
    "requestTimeoutSeconds": (ABSENT, ABSENT, 1, 3_600, 3_601, -1),
    "traffic": (ABSENT, ABSENT, [{"model": "iris", "percent": 100}], [{"model": "m", "percent": 90}]),
}


def _drawn(random: Random, kinds: dict[str, tuple[Any, ...]]) -> Json:
    """Mostly what is not said: of specs with many faults the check below would learn little."""
    said = random.sample(sorted(kinds), random.choice((1, 2, 3)))
    found = {name: random.choice(kinds[name]) for name in said}
    return {name: value for name, value in found.items() if value is not ABSENT}


@pytest.mark.parametrize("seed", range(4))
async def test_what_trimtab_apply_refuses_is_refused_here_and_nothing_else(
    api: Api, namespace: str, tmp_path: Path, seed: int
) -> None:
    random, file, refusals = Random(seed), tmp_path / "iris.yaml", 0
    for _ in range(200):
        spec = model(**_drawn(random, MODELS)) | _drawn(random, WHOLES)
        body = endpoint(namespace, "iris", spec)
        file.write_text(yaml.safe_dump(body))
        ours = theirs = ""
        try:
            (manifest,) = read_manifests(str(file), namespace)
            check_spec(manifest.name, manifest.spec)
        except InvalidInput as error:
            ours = str(error)
        try:
            await api.create(ENDPOINTS.path(namespace), body, STRICT | {"dryRun": "All"})
        except InvalidInput as error:
            theirs = str(error)
        assert bool(ours) == bool(theirs), (spec, ours, theirs)
        refusals += bool(ours)
    assert 40 < refusals < 160, "the draw tells little"


async def test_defaults_are_those_of_the_control_api(api: Api, namespace: str) -> None:
    made = orjson.loads(await api.create(ENDPOINTS.path(namespace), endpoint(namespace, "iris", model())))
    assert made["spec"] == {
        "maxPods": 0,
        "requestTimeoutSeconds": 300,
        "models": [
            {
                "uri": "models:/iris/3",
                "resources": {"cpu": "1"},
                "concurrency": {"min": 1},
                "envManager": "uv",
                "startTimeoutSeconds": 300,
            }
        ],
    }


async def test_the_example_of_the_docs_is_taken(api: Api, namespace: str) -> None:
    written = yaml.safe_load(EXAMPLE.read_text())
    await api.create(ENDPOINTS.path(namespace), written, STRICT)


async def test_the_status_is_written_apart_and_shown_in_columns(api: Api, namespace: str) -> None:
    await api.create(ENDPOINTS.path(namespace), endpoint(namespace, "iris", model()))
    path = ENDPOINTS.path(namespace, "iris")
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "revision 1 serves with 3 of 4 pods",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {
        "conditions": [ready],
        "observedGeneration": 1,
        "url": "http://gateway/serving-endpoints/iris",
        "pods": "3/4",
        "targetConcurrency": 8,
        "load": {"inFlight": 2.5, "queued": 0},
    }
    body = endpoint(namespace, "iris", model(concurrency={"min": 9})) | {"status": status}
    written = orjson.loads(await api.apply(ENDPOINTS.path(namespace, "iris", "status"), body))
    assert written["status"] == status
    assert written["spec"]["models"][0]["concurrency"] == {"min": 1}, "the status does not change the spec"
    assert orjson.loads(await api.get(path))["metadata"]["generation"] == 1

    table = orjson.loads(await api.get(path, accept="application/json;as=Table;g=meta.k8s.io;v=v1"))
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    del cells["Name"], cells["Age"]
    assert cells == {
        "Ready": "True",
        "URL": "http://gateway/serving-endpoints/iris",
        "Model": "models:/iris/3",
        "Pods": "3/4",
        "In flight": 2.5,
        "Queued": 0,
        "Target": 8,
    }


async def test_the_short_name_is_known(api: Api) -> None:
    found = orjson.loads(await api.get("/apis/serving.trimtab.dev/v1alpha1"))
    names = {each["name"]: each.get("shortNames") for each in found["resources"]}
    assert names["servingendpoints"] == ["sep"]
    assert "servingendpoints/status" in names
