"""The definition of ServingEndpoint is upgraded with the chart, and rolled back, under calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from deploy.crd.generate import definition
from tests.kube.release import (
    CHART,
    WITHIN_S,
    Installed,
    ask,
    calling,
    envoys,
    installation,
    leader,
    one_by_one,
    pods_of,
    serves,
)
from tests.kube.words import CRDS, ENDPOINTS, endpoint, read, until
from trimtab.core.errors import NotFound, Unreachable
from trimtab.kube import Api, Json

pytestmark = [pytest.mark.kube, pytest.mark.timeout(240)]

NAME = definition()["metadata"]["name"]
FIELD = "requestTimeoutSeconds"  # which the older chart does not know yet
COLUMN = "Target"  # which it does not show
COLUMNS = ("Ready", "Model", "Age")  # some of those that both do
WAITS = ("--wait", "--timeout=120s")  # for control planes, which are others after each of the two
PATIENCE_S = 1  # by the new field, of a model that takes longer


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it would have been: its definition lacks a field, with its rule, and a column."""
    chart = tmp_path_factory.mktemp("older") / "chart"
    shutil.copytree(CHART, chart)
    file = chart / "files" / "servingendpoints.yaml"
    found = yaml.safe_load(file.read_text())
    (version,) = found["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    version["additionalPrinterColumns"] = [each for each in columns if each["name"] != COLUMN]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"][FIELD]
    rules = spec["x-kubernetes-validations"]
    spec["x-kubernetes-validations"] = [each for each in rules if FIELD not in each["rule"]]
    assert (len(columns), len(rules)) != (len(version["additionalPrinterColumns"]), len(rules))
    file.write_text(yaml.safe_dump(found))
    return chart


@pytest.fixture
def namespace_of_release(our_images: dict[str, str], older: Path) -> Iterator[str]:
    """Other tests have a definition of their own there: this release takes it over, and they do again."""
    with installation(our_images, {}, older, ["--take-ownership"], crd__install="true") as namespace:
        yield namespace


async def test_the_definition_comes_and_goes_with_the_chart_and_no_request_fails(
    namespace_of_release: str, our_images: dict[str, str], image: str, api: Api
) -> None:
    release = Installed(api, namespace_of_release, our_images)
    await leader(release)
    assert not await knows(api), "else nothing is upgraded here"
    specs = {
        "iris": one_by_one(image, 1, 64, 2),
        "slow": one_by_one(image, 1, 64, 1, ANSWER_AFTER=f"{2 * PATIENCE_S}s"),
    }
    for name, spec in specs.items():
        await release.api.create(ENDPOINTS.path(release.namespace), endpoint(release.namespace, name, spec))
    for name in specs:
        await until(lambda name=name: serves(release, name, 1), WITHIN_S)  # type: ignore[misc]
    await until(lambda: shows(release, COLUMNS))
    before, running = await objects(release), await everything(release)
    assert FIELD not in before["iris"]["spec"], "who asks for it is told by nobody"
    with calling(await release.url("iris"), 2) as upgraded:
        said = release.values(crd__install="true", controlPlane__env__MADE_UP="newer")
        release.helm("upgrade", str(CHART), *said, *WAITS)
        assert await knows(api)
        await until(lambda: shows(release, [*COLUMNS, COLUMN]))
        after = await objects(release)
        assert {name: essence(each) for name, each in after.items()} == {
            name: essence(each) for name, each in before.items()
        }
        await patient(release, "slow", specs["slow"])
    assert upgraded.statuses.keys() == {"200"}, upgraded.statuses
    with calling(await release.url("iris"), 2) as rolled_back:
        release.helm("rollback", "1", *WAITS)
        assert not await knows(api)
        await until(lambda: shows(release, COLUMNS))
        again = await objects(release)
        assert {name: essence(each) for name, each in again.items()} == {
            name: essence(each) for name, each in before.items()
        }
    assert rolled_back.statuses.keys() == {"200"}, rolled_back.statuses
    assert await everything(release) >= running, "no model and no Envoy was restarted"


async def knows(api: Api) -> bool:
    """Whether the API server has the field, and says so to whoever asks for what it knows."""
    (version,) = (await read(api, CRDS.path(name=NAME)))["spec"]["versions"]
    return FIELD in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


async def objects(release: Installed) -> dict[str, Json]:
    found: list[Json] = []

    async def answered() -> bool:
        with contextlib.suppress(NotFound, Unreachable):  # "storage is (re)initializing"
            found[:] = (await read(release.api, ENDPOINTS.path(release.namespace)))["items"]
        return bool(found)

    await until(answered)
    return {each["metadata"]["name"]: each for each in found}


def essence(found: Json) -> Json:
    """What somebody wants, and of which object; without the field, which has a default."""
    kept = {key: value for key, value in found["spec"].items() if key != FIELD}
    return {"uid": found["metadata"]["uid"], "spec": kept}


async def patient(release: Installed, name: str, spec: Json) -> None:
    """The new field may be used: who waits for longer than it says is told so."""
    url = await release.url(name)
    assert (await asyncio.to_thread(ask, url))[0] == "200"
    body = endpoint(release.namespace, name, spec | {FIELD: PATIENCE_S})
    await release.api.apply(ENDPOINTS.path(release.namespace, name), body, "kubectl")

    async def ends() -> bool:
        return (await asyncio.to_thread(ask, url))[0] == "504"

    await until(ends, WITHIN_S)


async def everything(release: Installed) -> set[str]:
    """What serves."""
    return await envoys(release) | await pods_of(release, "iris") | await pods_of(release, "slow")


def shows(release: Installed, names: Collection[str]) -> bool:
    """Of all these columns those that are named, and no other."""
    there = columns(release)
    found = {name for name in (*COLUMNS, COLUMN) if name.upper() in there}
    return found == set(names)


def columns(release: Installed) -> list[str]:
    """What `kubectl get` shows; nothing while the API server has no answer."""
    command = ["kubectl", "--kubeconfig", os.environ["KUBECONFIG"], "--namespace", release.namespace]
    done = subprocess.run(
        [*command, "get", "servingendpoints.serving.trimtab.dev"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout.splitlines()[0].split() if done.returncode == 0 and done.stdout else []
