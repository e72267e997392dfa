"""Tests on a real Kubernetes, that of KUBECONFIG: each gets a namespace of its own."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.cluster import binaries, images, lifecycle, shares
from deploy.cluster.place import here
from deploy.images import build
from deploy.images.build import Built
from tests.kube import tracking
from tests.kube.inside import cluster_network, inner_kubeconfig
from tests.kube.plane import Plane
from tests.kube.release import have_ended, is_ready
from tests.kube.words import (
    HELD_S,
    HOLD,
    NAMESPACES,
    PODS,
    Make,
    context_name,
    define,
    namespace_of,
    read,
    until,
)
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey, revision_hash
from trimtab.core.spec import Custom, ModelSpec, Resources, Source
from trimtab.host.ports import free_port
from trimtab.kube import Api

IMAGE = "localhost/answers:1"
FIRST_NODE = "node"  # in whose network our control planes run: see `plane`
OURS = (*build.NAMES, build.HOLD)
ALWAYS = ("control-plane", "envoy", build.HOLD)  # what a release needs; the last one is a model's


# Where the time does not hold them all the last ones are skipped: first comes what users would miss most. But
# what needs a tracking server comes after something that does not: its image is brought meanwhile.
ORDER = (
    "faults", "chart", "envoys", "control", "cli", "crd", "lease", "taken_away", "uninstall", "quota",
    "fleet", "tenants", "rights", "pull_secrets", "chart_text", "upgrade", "spread", "mirror", "api", "watch",
    "work", "command", "shares", "migration", "edge", "models", "nodes_that_go", "model_cache",
    "placeholders", "pre_pull", "gpus",
    "cluster", "scale",
)  # fmt: skip
# They need our images, but not MLflow's, the largest: so each half has as much to do.
BESIDE = ("tenants", "edge")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """As ORDER has it, whatever else is collected before; a file that is not named there is the last."""
    places = {Path(__file__).with_name(f"test_{name}.py"): place for place, name in enumerate(ORDER)}
    ours = [each for each in items if _is_ours(each)]
    others = [each for each in items if not _is_ours(each)]
    items[:] = others + sorted(ours, key=lambda item: places.get(item.path, len(ORDER)))
    if share := os.environ.get(shares.SHARE):
        share_of = _shares(items)
        config.hook.pytest_deselected(items=[each for each in items if share_of[each.path] != share])
        items[:] = [each for each in items if share_of[each.path] == share]


def _shares(items: list[pytest.Item]) -> dict[Path, str]:
    """Of each file: it stays whole, for what it installs is installed once.

    Our images take a minute and gigabytes to come onto a cluster's nodes: of two clusters the first does what
    needs them, which is more than half of all; what is BESIDE can be had for less.
    """
    beside = {Path(__file__).with_name(f"test_{name}.py") for name in BESIDE}
    heavy = {each.path for each in items if _needs(each, "our_images")} - beside
    return {each.path: "1/2" if each.path in heavy else "2/2" for each in items}


def _needs(item: pytest.Item, fixture: str) -> bool:
    return fixture in getattr(item, "fixturenames", ())


def _is_ours(item: pytest.Item) -> bool:
    return item.path.parent == Path(__file__).parent


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """As whoever KUBECONFIG says."""
    if "KUBECONFIG" not in os.environ:
        pytest.fail("KUBECONFIG names no cluster: run these by `make test-kube`")
    connected = await Api.connect("trimtab-tests", os.environ["KUBECONFIG"])
    yield connected
    await connected.close()


@pytest.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    """A new one, at the Pod Security level `restricted`; deleted afterwards, and not waited for."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES.path(), namespace_of(name))
    yield name
    await api.delete(NAMESPACES.path(name=name))
    await api.delete(PODS.path(name), {"gracePeriodSeconds": 0})  # nobody is left who lets them go


@dataclass(frozen=True)
class Brought:
    """Our images, which are built and brought onto the nodes while tests run that do not need them yet."""

    built: Future[dict[str, Built]]
    there: dict[str, Future[None]]


@pytest.fixture(scope="session", autouse=True)
def brought(request: pytest.FixtureRequest) -> Iterator[Brought | None]:
    """Those that any test needs; None: no test does, or somebody else has brought them."""
    items = request.session.items
    names = [*ALWAYS] if any(_needs(each, "our_images") for each in items) else []
    names += ["mlflow"] if any(_needs(each, "mlflow_begun") for each in items) else []
    if not names or "TRIMTAB_KUBE_IMAGES" in os.environ or _is_theirs():
        yield None
        return
    with ThreadPoolExecutor(1) as beside:
        built = beside.submit(lambda: dict(zip(OURS, build.build(), strict=True)))

        def bring(name: str) -> None:
            lifecycle.import_image(here(), built.result()[name].archive)

        yield Brought(built, {name: beside.submit(bring, name) for name in names})
        beside.shutdown(cancel_futures=True)


def _is_theirs() -> bool:
    """Whether the cluster is none of ours."""
    return os.environ.get("KUBECONFIG") != str(here().kubeconfig)


@pytest.fixture(scope="session")
def our_images(brought: Brought | None) -> dict[str, str]:
    """The names of `control-plane`, `envoy`, `mlflow` and `hold`: built, and but for `mlflow` on the nodes.

    For a cluster that is not ours TRIMTAB_KUBE_IMAGES names them, in this order, with commas between.
    """
    if "TRIMTAB_KUBE_IMAGES" in os.environ:
        return dict(zip(OURS, os.environ["TRIMTAB_KUBE_IMAGES"].split(","), strict=True))
    if _is_theirs():
        pytest.skip("TRIMTAB_KUBE_IMAGES names no images: see `python -m deploy.images`")
    if reason := build.why_not():
        pytest.skip(reason)
    assert brought is not None
    try:
        built = brought.built.result()
    except build.NoBase as error:
        pytest.skip(f"our images have no base here: {error}")
    for name in ALWAYS:
        brought.there[name].result()
    return {name: image.name for name, image in built.items()}


@pytest.fixture(scope="session")
def mlflow_begun(our_images: dict[str, str], brought: Brought | None) -> Future[str]:
    """The name of the image `mlflow`, once it is on the nodes."""
    there: Future[str] = Future()
    if brought is None:
        there.set_result(our_images["mlflow"])
        return there

    def tell(done: Future[None]) -> None:
        if error := done.exception():
            there.set_exception(error)
        else:
            there.set_result(our_images["mlflow"])

    brought.there["mlflow"].add_done_callback(tell)
    return there


@pytest.fixture(scope="session")
def mlflow_image(mlflow_begun: Future[str]) -> str:
    """It is on the nodes."""
    return mlflow_begun.result()


@pytest.fixture(scope="session", autouse=True)
def releases_end() -> Iterator[None]:
    """Those that tests have left to end by themselves."""
    yield
    have_ended()


@pytest.fixture(scope="session")
def tracking_server(tracking_begun: Future[str]) -> str:
    """The address of an MLflow server in a namespace of its own, with two versions of the model `iris`.

    TRIMTAB_KUBE_TRACKING names one that is there already.
    """
    return tracking_begun.result()


@pytest.fixture(scope="session")
def tracking_begun(mlflow_begun: Future[str]) -> Iterator[Future[str]]:
    """The same, for whoever has something else to do until it is there."""
    if "TRIMTAB_KUBE_TRACKING" in os.environ:
        there: Future[str] = Future()
        there.set_result(os.environ["TRIMTAB_KUBE_TRACKING"])
        yield there
        return
    name = f"mlflow-{uuid.uuid4().hex[:8]}"

    async def begin() -> str:
        image = await asyncio.wrap_future(mlflow_begun)
        async with closing(await Api.connect("trimtab-tests", os.environ["KUBECONFIG"])) as api:
            await api.create(NAMESPACES.path(), namespace_of(name))
            return await tracking.start(api, name, image)

    async def end() -> None:
        async with closing(await Api.connect("trimtab-tests", os.environ["KUBECONFIG"])) as api:
            await api.delete(NAMESPACES.path(name=name))

    with ThreadPoolExecutor(1) as beside:  # the loops of tests are not ours
        yield beside.submit(asyncio.run, begin())
        beside.submit(asyncio.run, end()).result()


@asynccontextmanager
async def closing(api: Api) -> AsyncIterator[Api]:
    try:
        yield api
    finally:
        await api.close()


@pytest.fixture
async def crd(api: Api) -> None:
    """The API server knows ServingEndpoint, as it is generated now."""
    await define(api)


@pytest.fixture
def plane(namespace: str, tmp_path: Path) -> Iterator[Plane]:
    """A control plane on the node, which serves the test's namespace, and an Envoy beside it."""
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("pods of that cluster may not be reached from here")
    made = Plane(tmp_path / "home", namespace)
    made.home.mkdir()
    made.start()
    made.start_envoy()
    yield made
    made.end()


@pytest.fixture
async def door(api: Api, image: str, plane: Plane) -> AsyncIterator[tuple[str, ...]]:
    """Options of the CLI for a control plane in a pod: in one that shares the node's network."""
    name = f"door-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES.path(), {"metadata": {"name": name}})
    container = {
        "name": "door",
        "image": image,
        "env": [{"name": "PORT", "value": str(free_port("127.0.0.1"))}],
        "ports": [{"name": "control", "containerPort": plane.control_port}],
    }
    body = {
        "metadata": {"name": "door", "labels": {"app.kubernetes.io/component": "control-plane"}},
        "spec": {
            "nodeName": FIRST_NODE,
            "hostNetwork": True,
            "containers": [container],
            "terminationGracePeriodSeconds": 0,
        },
    }
    await api.create(PODS.path(name), body)

    async def opens() -> bool:
        return is_ready(await read(api, PODS.path(name, "door")))

    await until(opens)
    yield ("--kube-context", context_name(), "--kube-namespace", name)
    await api.delete(NAMESPACES.path(name=name))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that is on the node: that of a small server, unless TRIMTAB_KUBE_IMAGE names one like it."""
    if "TRIMTAB_KUBE_IMAGE" in os.environ:
        return os.environ["TRIMTAB_KUBE_IMAGE"]
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        told = "push images of deploy/cluster/go/small/answers and deploy/hold, name them in"
        pytest.skip(f"{told} TRIMTAB_KUBE_IMAGE and TRIMTAB_KUBE_HOLD_IMAGE")
    for program, name in (("answers", IMAGE), ("hold", HOLD)):
        archive = tmp_path_factory.mktemp("images") / f"{program}.tar"
        images.write_image(binaries.folder() / program, name, archive)
        lifecycle.import_image(here(), archive)
    return IMAGE


@pytest.fixture
def revision(namespace: str, image: str) -> Make:
    """Revisions of `iris` in the test's namespace; further arguments are variables of the server."""

    def make(number: int = 1, image: str = image, **env: str) -> Revision:
        model = ModelSpec(
            name="iris",
            source=Source(uri="own", digest="sha256:" + "ab" * 32),
            runtime="custom",
            custom=Custom(image=image),
            resources=Resources(cpu=0.1, memory_bytes=32 << 20),
            start_timeout_s=HELD_S,
            env=tuple(sorted(env.items())),
        )
        return Revision(
            RevisionKey(EndpointName(namespace, "iris"), number), model, revision_hash(model), 0.0
        )

    return make


@pytest.fixture
async def inside(api: Api, namespace: str) -> AsyncIterator[Api]:
    """The API server as pods have it, and everything that the test does from now on is in their network.

    Asks for the namespace so that it is made before, and removed after.
    """
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("only of a cluster of our own is the network at hand")
    with cluster_network():
        connected = await Api.connect("trimtab-tests", inner_kubeconfig())
        try:
            yield connected
        finally:
            await connected.close()
