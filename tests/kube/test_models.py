"""Models of a real tracking server in pods, served from our image of the runtime `mlflow`."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from tests.kube import tracking
from tests.kube.release import write_secret
from tests.kube.words import until
from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey, revision_hash
from trimtab.core.spec import Custom, ModelSpec, Resources, Source
from trimtab.fleet.kubernetes import HOLD_IMAGE, KubernetesFleet
from trimtab.kube import Api, Resource

pytestmark = pytest.mark.kube

PODS = Resource("v1", "pods")
STARTED_WITHIN_S = 180.0  # MLflow's import, on a busy machine


def revision(namespace: str, uri: str, tracking_uri: str, number: int = 1, secret: str = "") -> Revision:
    model = ModelSpec(
        name="iris",
        source=Source(uri=uri, resolved_uri=uri, digest=f"uri:{uri}"),
        resources=Resources(cpu=0.9, memory_bytes=1 << 30),
        env_manager="local",  # from a pod of the tests' cluster no package index is reached
        tracking_uri=tracking_uri,
        secret=secret,
    )
    return Revision(RevisionKey(EndpointName(namespace, "iris"), number), model, revision_hash(model), 0.0)


@pytest.mark.timeout(900)
async def test_a_pod_brings_its_model_and_answers(
    api: Api, namespace: str, mlflow_image: str, tracking_server: str
) -> None:
    """With a read-only root, at the Pod Security level `restricted`; one that is not there is told."""
    fleet = KubernetesFleet(api, SystemClock(), {"mlflow": mlflow_image}, namespace)
    await fleet.open()
    try:
        await fleet.start_pod(revision(namespace, "models:/iris/1", tracking_server))
        await until(lambda: [p.phase for p in fleet.pods()] == [PodPhase.READY], STARTED_WITHIN_S)
        (pod,) = fleet.pods()
        proxy = PODS.path(namespace, f"{pod.id.partition('/')[2]}:8080", "proxy")
        answer = await api.create(f"{proxy}/invocations", {"inputs": [[5.1, 3.5, 1.4, 0.2]]})
        assert orjson.loads(answer) == {"predictions": [0]}
        assert "trimtab_predict_running" in (await api.get(f"{proxy}/metrics")).decode()

        missing = revision(namespace, "models:/iris/77", tracking_server, number=2)
        await fleet.start_pod(missing)
        await until(lambda: PodPhase.FAILED in {p.phase for p in fleet.pods()}, STARTED_WITHIN_S)
        (failed,) = [p for p in fleet.pods() if p.phase is PodPhase.FAILED]
        assert "version 77" in failed.cause
        assert "its latest versions: 2, 1" in failed.cause
    finally:
        await fleet.close()


@pytest.mark.timeout(600)
async def test_a_tracking_server_that_is_away_is_named(api: Api, namespace: str, mlflow_image: str) -> None:
    fleet = KubernetesFleet(api, SystemClock(), {"mlflow": mlflow_image}, namespace)
    await fleet.open()
    try:
        away = revision(namespace, "models:/iris/1", "http://nobody.invalid:5000")
        await fleet.start_pod(away)
        await until(lambda: PodPhase.FAILED in {p.phase for p in fleet.pods()}, STARTED_WITHIN_S)
        (failed,) = fleet.pods()
        assert "nobody.invalid" in failed.cause
    finally:
        await fleet.close()


@pytest.mark.timeout(900)
async def test_a_tracking_server_that_wants_a_password_is_shown_that_of_the_secret(
    api: Api, namespace: str, mlflow_image: str, tracking_server: str
) -> None:
    """A Secret that is not there is waited for and named, and a wrong one is told as what it is."""
    guard = await tracking.guarded(api, namespace, mlflow_image, tracking_server, "ann", "right")
    fleet = KubernetesFleet(api, SystemClock(), {"mlflow": mlflow_image}, namespace)
    await fleet.open()
    try:
        await write_secret(api, namespace, "wrong", login("ann", "wrong"))
        refused = revision(namespace, "models:/iris/1", guard, 1, "wrong")
        await fleet.start_pod(refused)
        await until(lambda: failed(fleet), STARTED_WITHIN_S)
        (wrong,) = failed(fleet)
        remedy = "give credentials: MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_USERNAME"
        for words in ("may not be read", guard, remedy):
            assert words in wrong.cause, wrong.cause

        waits = revision(namespace, "models:/iris/1", guard, 2, "mlflow")
        await fleet.start_pod(waits)
        await until(lambda: fleet.room(waits).pods == 0, STARTED_WITHIN_S)
        told = f'the namespace `{namespace}`: secret "mlflow" not found'
        assert fleet.room(waits).why == f"{told}; make it there, or let secretRef name another one"
        await write_secret(api, namespace, "mlflow", login("ann", "right"))
        await until(lambda: ready(fleet) == [waits.key], STARTED_WITHIN_S)
        assert fleet.room(waits).pods is None
    finally:
        await fleet.close()


def login(user: str, password: str) -> dict[str, bytes]:
    return {"MLFLOW_TRACKING_USERNAME": user.encode(), "MLFLOW_TRACKING_PASSWORD": password.encode()}


def failed(fleet: KubernetesFleet) -> list[Pod]:
    return [pod for pod in fleet.pods() if pod.phase is PodPhase.FAILED]


def ready(fleet: KubernetesFleet) -> list[RevisionKey]:
    return [pod.revision for pod in fleet.pods() if pod.phase is PodPhase.READY]


async def test_a_pod_that_never_served_and_does_not_hear_of_its_end_is_gone_soon(
    api: Api, namespace: str, our_images: dict[str, str], mlflow_image: str
) -> None:
    """As Python, being process 1, until something in it asks for SIGTERM: for as long as a model loads."""
    model = revision(namespace, "own", "").model
    deaf = Custom(("python", "-c", "import time; time.sleep(3600)"), mlflow_image)
    model = replace(model, runtime="custom", custom=deaf, resources=Resources(cpu=0.1), start_timeout_s=300.0)
    deaf_one = Revision(RevisionKey(EndpointName(namespace, "deaf"), 1), model, revision_hash(model), 0.0)
    fleet = KubernetesFleet(api, SystemClock(), {HOLD_IMAGE: our_images["hold"]}, namespace)
    await fleet.open()
    try:
        await fleet.start_pod(deaf_one)
        await until(lambda: [pod.host != "" for pod in fleet.pods()] == [True])
        (pod,) = fleet.pods()
        await until(lambda: runs(api, pod))
        await fleet.stop_pod(pod.id, 0.0)
        await until(lambda: not fleet.pods(), 120.0)  # it may be held for 300 s
    finally:
        await fleet.close()


async def runs(api: Api, pod: Pod) -> bool:
    namespace, _, name = pod.id.partition("/")
    status = orjson.loads(await api.get(PODS.path(namespace, name)))["status"]
    return any("running" in each["state"] for each in status.get("containerStatuses") or ())
