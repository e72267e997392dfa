"""How a later version of the resource will come: with one that is made up, in a group of its own."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.crd.generate import definition
from deploy.crd.migrate import migrate
from tests.kube.words import CRDS, endpoint, read, until
from trimtab.core.errors import InvalidInput, NotFound, Unreachable
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

GROUP = "made-up.trimtab.dev"
OLD = Resource(f"{GROUP}/v1alpha1", "servingendpoints")
NEW = Resource(f"{GROUP}/v1beta1", "servingendpoints")
NAME = f"servingendpoints.{GROUP}"


def in_group(*versions: Json) -> Json:
    found = copy.deepcopy(definition())
    found["metadata"]["name"] = NAME
    found["spec"]["group"] = GROUP
    found["spec"]["names"]["shortNames"] = ["madeup"]
    found["spec"]["versions"] = list(versions)
    return found


def version(name: str, *, stored: bool, served: bool = True) -> Json:
    """As it is generated; those after the first have one more field, with a default."""
    (found,) = copy.deepcopy(definition()["spec"]["versions"])
    found |= {"name": name, "storage": stored, "served": served}
    if name != "v1alpha1":
        spec = found["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"]["madeUp"] = {"type": "string", "default": "as before"}
    return found


@pytest.fixture
async def made_up(api: Api) -> AsyncIterator[None]:
    await api.apply(CRDS.path(name=NAME), in_group(version("v1alpha1", stored=True)))
    await until(lambda: served(api, OLD))
    yield
    await api.delete(CRDS.path(name=NAME))


async def served(api: Api, resource: Resource) -> bool:
    try:
        await api.get(resource.path("default"))
    except (NotFound, Unreachable):
        return False
    return True


async def stored(api: Api) -> list[Any]:
    found: list[Any] = (await read(api, CRDS.path(name=NAME)))["status"]["storedVersions"]
    return found


@pytest.mark.usefixtures("made_up")
async def test_objects_move_to_a_later_version_and_the_first_one_may_go(api: Api, namespace: str) -> None:
    names = [f"e{number}" for number in range(5)]
    for name in names:
        body = endpoint(namespace, name, {"models": [{"uri": "models:/iris/3"}]})
        await api.create(OLD.path(namespace), body | {"apiVersion": OLD.version})

    both = in_group(version("v1alpha1", stored=False), version("v1beta1", stored=True))
    await api.apply(CRDS.path(name=NAME), both)
    await until(lambda: served(api, NEW))
    assert await stored(api) == ["v1alpha1", "v1beta1"]
    assert "madeUp" not in (await read(api, NEW.path(namespace, "e0")))["spec"], "defaults come by a write"

    alone = in_group(version("v1beta1", stored=True))
    with pytest.raises(InvalidInput, match="storedVersions"):
        await api.apply(CRDS.path(name=NAME), alone)

    before = [(await read(api, OLD.path(namespace, name)))["metadata"] for name in names]
    assert await migrate(api, NAME) >= len(names)
    after = [(await read(api, OLD.path(namespace, name)))["metadata"] for name in names]
    assert all(
        one["resourceVersion"] != two["resourceVersion"] for one, two in zip(before, after, strict=True)
    )
    assert (await read(api, NEW.path(namespace, "e0")))["spec"]["madeUp"] == "as before"
    old = await read(api, OLD.path(namespace, "e0"))
    assert "madeUp" not in old["spec"], "who knows the old one goes on"
    assert await stored(api) == ["v1beta1"]

    assert await migrate(api, NAME) >= len(names)
    again = [(await read(api, NEW.path(namespace, name)))["metadata"]["resourceVersion"] for name in names]
    assert again == [each["resourceVersion"] for each in after], "what is stored anew already is not written"

    await api.apply(CRDS.path(name=NAME), alone)
    await until(lambda: gone(api, OLD))
    spec = (await read(api, NEW.path(namespace, "e4")))["spec"]
    assert spec["models"][0]["uri"] == "models:/iris/3"


async def gone(api: Api, resource: Resource) -> bool:
    return not await served(api, resource)
