"""The definition of ServingEndpoint is upgraded with the chart, and rolled back, under calls."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
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
from tests.kube.words import CRDS, ENDPOINTS, define, endpoint, read, until
from trimtab.kube import Api, Json

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

NAME = definition()["metadata"]["name"]
FIELD = "requestTimeoutSeconds"  # which the older chart does not know yet
COLUMN = "Target"
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
    """Other tests have a definition of their own in the cluster: this release takes it over."""
    with installation(our_images, {}, older, ["--take-ownership"], crd__install="true") as namespace:
        yield namespace


async def test_the_definition_comes_and_goes_with_the_chart_and_no_request_fails(
    namespace_of_release: str, our_images: dict[str, str], image: str, api: Api
) -> None:
    release = Installed(api, namespace_of_release, our_images)
    try:
        await leader(release)
        assert not await knows(api), "else nothing is upgraded here"
        specs = {
            "iris": one_by_one(image, 1, 64, 2),
            "slow": one_by_one(image, 1, 64, 1, ANSWER_AFTER=f"{2 * PATIENCE_S}s"),
        }
        for name, spec in specs.items():
            await release.api.create(
                ENDPOINTS.path(release.namespace), endpoint(release.namespace, name, spec)
            )
        for name in specs:
            await until(lambda name=name: serves(release, name, 1), WITHIN_S)  # type: ignore[misc]
        assert COLUMN.upper() not in columns(release)
        before, running = await objects(release), await everything(release)
        assert FIELD not in before["iris"]["spec"], "who asks for it is told by nobody"
        with calling(await release.url("iris"), 2) as upgraded:
            release.helm("upgrade", str(CHART), *release.values(crd__install="true"))
            await until(lambda: knows(api), WITHIN_S)
            assert COLUMN.upper() in columns(release)
            after = await objects(release)
            assert {name: essence(each) for name, each in after.items()} == {
                name: essence(each) for name, each in before.items()
            }
            await patient(release, "slow", specs["slow"])
        assert upgraded.statuses.keys() == {"200"}, upgraded.statuses
        with calling(await release.url("iris"), 2) as rolled_back:
            release.helm("rollback", "1")
            await until(lambda: forgotten(api), WITHIN_S)
            assert COLUMN.upper() not in columns(release)
            again = await objects(release)
            assert {name: essence(each) for name, each in again.items()} == {
                name: essence(each) for name, each in before.items()
            }
        assert rolled_back.statuses.keys() == {"200"}, rolled_back.statuses
        assert await everything(release) >= running, "no model and no Envoy was restarted"
    finally:
        await define(api)  # what others go by


async def knows(api: Api) -> bool:
    """Whether the API server has the field, and says so to whoever asks for what it knows."""
    (version,) = (await read(api, CRDS.path(name=NAME)))["spec"]["versions"]
    return FIELD in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


async def forgotten(api: Api) -> bool:
    return not await knows(api)


async def objects(release: Installed) -> dict[str, Json]:
    listed = await read(release.api, ENDPOINTS.path(release.namespace))
    return {each["metadata"]["name"]: each for each in listed["items"]}


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


def columns(release: Installed) -> list[str]:
    """What `kubectl get` shows."""
    command = ["kubectl", "--kubeconfig", os.environ["KUBECONFIG"], "--namespace", release.namespace]
    done = subprocess.run(
        [*command, "get", "servingendpoints.serving.trimtab.dev"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[0].split() if done.stdout else []
