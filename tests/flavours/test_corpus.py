"""Models of every flavour, each served by a pod and by MLflow's own server: the same answers and errors.

Both are asked as whole applications in this process, over ASGI, in every format that MLflow takes, with
values that fit the signature and values that do not. Requests that are predicted together may differ in the
last bits of floats.
"""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

with warnings.catch_warnings():  # of what is imported: no errors of ours
    warnings.simplefilter("ignore")
    from mlflow.pyfunc import load_model, scoring_server

    from tests.flavours.models import MODELS
    from tests.runtime.fast.bodies import requests
    from tests.runtime.fast.subjects import Subject, subject_of
    from trimtab.runtime.mlflow.independence import TOLERANCE, close
    from trimtab.runtime.mlflow.job import Job
    from trimtab.runtime.mlflow.options import Options
    from trimtab.runtime.mlflow.pod import Pod

MORE = os.environ.get("TRIMTAB_FAST_EXAMPLES")  # then they are drawn anew each time
EXAMPLES = int(MORE or 60)  # for each model
TOGETHER = 16
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=MORE is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MLFLOWS_WAY = {"pyfunc type hint"}  # inputs of a type hint are not data
JSON = "application/json"

# In a pod a warning is a line in the log; as an error it would change MLflow's answers.
pytestmark = [pytest.mark.flavours, pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]

Said = tuple[int, str, bytes]


class Both:
    """One model, served by a pod and by MLflow's own application."""

    def __init__(self, name: str, folder: Path) -> None:
        MODELS[name](folder / "model")
        os.environ["OMP_NUM_THREADS"] = "1"  # as a pod of one core is started
        pod = Pod(Options(folder / "model", "127.0.0.1:1", folder / "stages.jsonl", threads=4))
        pod.prepare()
        pod.open()
        model = load_model(str(folder / "model"))
        self._example = folder / "model" / "serving_input_example.json"
        self.served = pod.service.dispatch._model
        self.subject: Subject = subject_of(name, model)
        self.asked_slowly = 0
        self._pod, self._ours, self._theirs = pod, pod.service, scoring_server.init(model)
        self._loop = asyncio.new_event_loop()
        self.fast = self._watched(pod.service.dispatch)

    def _watched(self, dispatch: Any) -> bool:
        """Count what goes MLflow's way; whether there is another."""
        scorer = getattr(dispatch._model, "_scorer", None)
        if scorer is None:
            return False
        carry_out = scorer.carry_out

        def counted(job: Job) -> None:
            self.asked_slowly += 1
            carry_out(job)

        scorer.carry_out = counted
        return True

    def close(self) -> None:
        self._pod.close()
        self._loop.close()

    def example(self) -> bytes:
        """The request that was saved with the model."""
        return self._example.read_bytes()

    def ours(self, *asked: tuple[bytes, str]) -> list[Said]:
        """The pod's answers to requests that come at once."""

        async def all_at_once() -> list[Said]:
            return await asyncio.gather(*(said(self._ours, *each) for each in asked))

        return self._loop.run_until_complete(all_at_once())

    def theirs(self, body: bytes, content_type: str) -> Said:
        try:
            return self._loop.run_until_complete(said(self._theirs, body, content_type))
        except Exception:  # noqa: BLE001  above its application, Starlette answers what it lets through
            return 500, "text/plain; charset=utf-8", b"Internal Server Error"


async def said(app: Any, body: bytes, content_type: str) -> Said:
    """What an ASGI application answers to a POST /invocations."""
    sent: list[Any] = []
    came = asyncio.Event()
    head = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/invocations", "headers": head}
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await came.wait()  # the client stays
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope, "query_string": b"", "raw_path": b"/invocations"}, receive, send)
    kind = dict(sent[0]["headers"])[b"content-type"].decode()
    return sent[0]["status"], kind, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(scope="module", params=MODELS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    made = Both(request.param, tmp_path_factory.mktemp("model"))
    yield made
    made.close()


def test_answers_and_errors_are_mlflows(both: Both) -> None:
    seen: Counter[Any] = Counter()

    @SETTINGS
    @given(request=requests(both.subject))
    def alike(request: tuple[bytes, str]) -> None:
        before = both.asked_slowly
        [ours] = both.ours(request)
        assert ours == both.theirs(*request)
        seen["fast" if both.fast and both.asked_slowly == before else "MLflow's"] += 1
        seen[ours[0]] += 1

    alike()
    assert (not both.fast) == (both.subject.name in MLFLOWS_WAY)
    assert not both.fast or seen["fast"] >= EXAMPLES / 30, f"the fast path was hardly taken: {seen}"
    assert seen[200] >= EXAMPLES / 10, f"hardly anything was answered: {seen}"
    assert seen[400] >= EXAMPLES / 20, f"nothing odd was asked: {seen}"


def test_its_example_asked_by_many_at_once_is_answered_as_by_mlflow(both: Both) -> None:
    body = both.example()
    status, kind, expected = both.theirs(body, JSON)
    assert status == 200, expected
    for ours in both.ours(*[(body, JSON)] * TOGETHER):
        assert ours[:2] == (status, kind)
        assert close(json.loads(ours[2]), json.loads(expected), TOLERANCE)


@pytest.mark.parametrize("both", ["onnx"], indirect=True)
def test_onnx_runtime_has_the_threads_of_the_pod(both: Both) -> None:
    session = both.served.fast.model._model_impl.rt
    assert session.get_session_options().intra_op_num_threads == 1
