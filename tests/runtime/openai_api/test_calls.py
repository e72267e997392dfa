"""OpenAI's calls at a service in this process: MLflow's chat models and agents, whole and in parts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import mlflow.pyfunc
import openai
import pytest
from hypothesis import given
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.pyfunc import ChatModel
from mlflow.pyfunc.loaders.chat_model import _ChatModelPyfuncWrapper
from mlflow.pyfunc.loaders.responses_agent import _ResponsesAgentPyfuncWrapper
from mlflow.pyfunc.model import ResponsesAgent
from mlflow.types import ColSpec, Schema
from mlflow.types.llm import (
    CHAT_MODEL_INPUT_SCHEMA,
    CHAT_MODEL_OUTPUT_SCHEMA,
    ChatChoice,
    ChatChoiceDelta,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
)
from mlflow.types.responses import (
    RESPONSES_AGENT_INPUT_SCHEMA,
    RESPONSES_AGENT_OUTPUT_SCHEMA,
    ResponsesAgentResponse,
    ResponsesAgentStreamEvent,
)

from tests.runtime.fuzz_protocols import QUICKLY, chats
from trimtab.core.clock import SystemClock
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.http import ABORT
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.openai_api import events, job, service
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.scoring import Scorer
from trimtab.runtime.mlflow.service import Service

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]
WAIT_S = 30
CHAT = "/v1/chat/completions"
HELLO = {"model": "bot", "messages": [{"role": "user", "content": "to be or not"}]}


class Whole(ChatModel):
    """Says back what it is told, and what it may say."""

    def predict(self, context: Any, messages: Any, params: Any) -> Any:
        text = str(messages[-1].content)
        if text == "raise":
            raise ValueError("no words")
        message = ChatMessage("assistant", f"{text} ({params.max_tokens}, {params.temperature})")
        return ChatCompletionResponse([ChatChoice(message=message)])


class Parted(Whole):
    """Says it word by word; after some words it does what they say."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        self.said = 0
        self.closed = threading.Event()

    def predict_stream(self, context: Any, messages: Any, params: Any) -> Any:
        try:
            for word in str(messages[-1].content).split():
                if word == "raise":
                    raise ValueError("no words")
                if word == "wait":
                    self.begun.set()
                    assert self.open.wait(WAIT_S)
                self.said += 1
                yield ChatCompletionChunk([ChatChunkChoice(delta=ChatChoiceDelta("assistant", word))])
        finally:
            self.closed.set()


class Agent(ResponsesAgent):
    """Answers with one text, in one part and the end."""

    def predict(self, request: Any) -> Any:
        item = self.create_text_output_item("so it is", "msg_1")
        return ResponsesAgentResponse(output=[item])

    def predict_stream(self, request: Any) -> Any:
        item = self.create_text_output_item("so it is", "msg_1")
        yield ResponsesAgentStreamEvent(type="response.output_item.done", item=item)


def loaded(task: str | None, inputs: Schema, outputs: Schema, impl: Any) -> Any:
    meta = MlflowModel(signature=ModelSignature(inputs, outputs), metadata={"task": task} if task else None)
    meta.add_flavor("python_function", loader_module="mlflow.pyfunc.loaders.chat_model")
    stream = "predict_stream" if hasattr(impl, "predict_stream") else None
    return mlflow.pyfunc.PyFuncModel(meta, impl, predict_stream_fn=stream)


def chat(model: ChatModel, task: str | None = "agent/v1/chat") -> Any:
    wrapped = _ChatModelPyfuncWrapper(model, None, None)
    return loaded(task, CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA, wrapped)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event; the last word as it is."""
        assert self.headers["content-type"].startswith("text/event-stream")
        told = [event.removeprefix("data: ") for event in self.body.decode().split("\n\n")[:-1]]
        return [event if event == "[DONE]" else json.loads(event) for event in told]


class Pod:
    """A service with a model, in this loop."""

    def __init__(self, model: Any, threads: int = 2, queue: int = 0, timeout_s: float = WAIT_S) -> None:
        scorer = Scorer(model)
        scorer.timeout_s = timeout_s
        self.pool = Pool(threads, queue)
        self.metrics = Metrics(self.pool)
        self.service = Service(self.metrics, SystemClock())
        dispatch = Dispatch(scorer, self.pool, self.metrics.predict.observe)
        self.service.protocols.open(dispatch, scorer, ("bot", "bot.default"))
        self.service.open(dispatch)

    async def ask(
        self,
        body: Any = None,
        path: str = CHAT,
        method: str = "POST",
        sent: Callable[[bytes], None] = lambda _: None,
        left: asyncio.Event | None = None,
    ) -> Reply:
        """One request. `sent` gets each part of the answer; the client leaves once `left` is set."""
        messages: list[Any] = []
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        asked = iter([{"type": "http.request", "body": data}])

        async def receive() -> Any:
            found = next(asked, None)
            if found is None:
                await (left or asyncio.Event()).wait()
                return {"type": "http.disconnect"}
            return found

        async def send(message: Any) -> None:
            messages.append(message)
            if message["type"] == "http.response.body":
                sent(message["body"])

        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        await asyncio.wait_for(self.service(scope, receive, send), WAIT_S)
        if not messages:
            return Reply(0, {}, b"")
        assert left or not messages[-1].get("more_body"), "it has an end"
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return Reply(messages[0]["status"], headers, b"".join(m["body"] for m in messages[1:]))


@pytest.mark.parametrize("task", ["agent/v1/chat", "llm/v1/chat", None], ids=str)
async def test_a_chat_model_answers_whole(task: str | None) -> None:
    """By its task, or else by its signature."""
    reply = await Pod(chat(Whole(), task)).ask({**HELLO, "max_completion_tokens": 7, "user": "me"})
    assert reply.status == 200, reply
    told = reply.value
    assert told["choices"][0]["message"] == {"role": "assistant", "content": "to be or not (7, 1.0)"}
    assert (told["object"], told["model"], told["id"][:9]) == ("chat.completion", "bot", "chatcmpl-")
    assert told["created"] > 0
    assert "server-timing" in reply.headers


@pytest.mark.parametrize("name", ["stream", "temperature", "max_tokens", "model", "user", "n", "stop"])
async def test_null_is_as_if_it_were_not_said(name: str) -> None:
    """So it is with OpenAI; MLflow's own checks took it for a value."""
    reply = await Pod(chat(Whole())).ask({**HELLO, name: None})
    assert reply.status == 200, reply
    assert reply.value["choices"][0]["message"]["content"] == "to be or not (None, 1.0)"


@QUICKLY
@given(chats)
async def test_no_call_is_a_failure_of_ours(body: bytes) -> None:
    """What goes wrong is told in OpenAI's form, whole or as an event: the caller's fault, or the model's."""
    reply = await Pod(chat(Parted())).ask(body)
    streamed = reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.status == 200) == ("x-trimtab-fault" not in reply.headers)
    if reply.status != 200:
        assert set(reply.value["error"]) == {"message", "type", "param", "code"}
        assert reply.headers["x-trimtab-fault"] == ("model" if reply.status >= 500 else "caller"), reply
        assert reply.status < 500 or "IndexError" in reply.value["error"]["message"], reply  # of no messages
    elif streamed:
        assert reply.events[-1] == "[DONE]" or "error" in reply.events[-1]
    else:
        assert reply.value["choices"]


async def test_a_chat_model_answers_in_parts() -> None:
    reply = await Pod(chat(Parted())).ask({**HELLO, "model": "bot.default", "stream": True})
    *parts, last = reply.events
    assert (reply.status, last) == (200, "[DONE]")
    assert [part["choices"][0]["delta"]["content"] for part in parts] == ["to", "be", "or", "not"]
    assert {(part["object"], part["model"]) for part in parts} == {("chat.completion.chunk", "bot.default")}
    assert len({part["id"] for part in parts}) == 1


async def test_a_model_without_streams_says_all_in_one_part() -> None:
    reply = await Pod(chat(Whole())).ask({**HELLO, "stream": True})
    part, last = reply.events
    assert last == "[DONE]"
    assert part["object"] == "chat.completion.chunk"
    assert part["choices"][0]["delta"]["content"] == "to be or not (None, 1.0)"


async def test_a_stream_ends_at_once_where_no_part_can_be_made_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Scorer, "answer", lambda *_: Answer('{"choices": ["no choice"]}', 200))
    reply = await Pod(chat(Whole())).ask({**HELLO, "stream": True})
    assert (reply.status, reply.headers["x-trimtab-fault"]) == (500, "model")


async def full_pod() -> tuple[Parted, Pod, asyncio.Task[Any]]:
    """A model that answers once it is `open`, its pod of one thread, and the stream that holds that."""
    model = Parted()
    model.open.clear()
    pod = Pod(chat(model), threads=1)
    words = {"role": "user", "content": "wait"}
    running = asyncio.create_task(pod.ask({**HELLO, "messages": [words], "stream": True}))
    assert await asyncio.to_thread(model.begun.wait, WAIT_S)
    return model, pod, running


async def test_a_stream_that_comes_from_a_batch_into_a_full_pod_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, pod, running = await full_pod()
    monkeypatch.setattr(Dispatch, "submit", Dispatch.alone)  # as a batch does with what it cannot read
    assert (await pod.ask({**HELLO, "stream": True})).status == 503
    model.open.set()
    assert (await running).status == 200


async def test_a_call_that_never_is_complete_is_given_up() -> None:
    pod = Pod(chat(Whole()), timeout_s=0.1)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await asyncio.wait_for(pod.service(scope, receive, send), WAIT_S)
    assert sent[0]["status"] == 504


async def test_a_call_whose_client_leaves_while_it_sends_is_counted() -> None:
    pod = Pod(chat(Whole()))

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await pod.service(scope, receive, receive)  # type: ignore[arg-type]
    assert b'http_response_status_code="499"' in pod.metrics.response().body


async def test_a_part_goes_out_before_the_next_one_is_made() -> None:
    model = Parted()
    model.open.clear()
    seen: list[bytes] = []

    def sent(part: bytes) -> None:
        seen.append(part)
        if len(seen) == 1:
            model.open.set()  # had the first part waited for the second, neither would come

    reply = await Pod(chat(model)).ask(
        {**HELLO, "messages": [{"role": "user", "content": "first wait"}], "stream": True}, sent=sent
    )
    assert len(reply.events) == 3


async def test_a_failure_before_the_first_part_has_a_status_and_one_behind_it_is_an_event() -> None:
    pod = Pod(chat(Parted()))
    first = await pod.ask({**HELLO, "messages": [{"role": "user", "content": "raise"}], "stream": True})
    assert (first.status, first.headers["x-trimtab-fault"]) == (500, "model")
    assert first.value["error"]["message"] == "ValueError: no words"
    later = await pod.ask({**HELLO, "messages": [{"role": "user", "content": "well raise"}], "stream": True})
    word, problem = later.events
    assert word["choices"][0]["delta"]["content"] == "well"
    assert problem["error"]["message"] == "ValueError: no words"
    whole = await pod.ask({**HELLO, "messages": [{"role": "user", "content": "raise"}]})
    assert (whole.status, whole.headers["x-trimtab-fault"]) == (500, "model")
    assert whole.value["error"] == {
        "message": "ValueError: no words",
        "type": "server_error",
        "param": None,
        "code": None,
    }


async def test_a_client_that_leaves_ends_the_models_work() -> None:
    model = Parted()
    left = asyncio.Event()
    pod = Pod(chat(model))
    words = {"role": "user", "content": "word " * 10_000}
    reply = await pod.ask(
        {**HELLO, "messages": [words], "stream": True}, sent=lambda _: left.set(), left=left
    )
    assert b"[DONE]" not in reply.body
    assert await asyncio.to_thread(model.closed.wait, WAIT_S)
    assert model.said < 10_000


async def test_a_client_that_takes_nothing_ends_the_models_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold a thread for as long as it likes."""
    monkeypatch.setattr(events, "TAKEN_WITHIN_S", 0.2)
    model = Parted()
    pod = Pod(chat(model), threads=1)
    aborted = asyncio.Event()
    words = {"role": "user", "content": "word " * 10_000}
    body = json.dumps({**HELLO, "messages": [words], "stream": True}).encode()
    asked = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        return next(asked, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    scope |= {"query_string": b"", ABORT: aborted.set}
    await asyncio.wait_for(pod.service(scope, receive, send), WAIT_S)
    assert aborted.is_set(), "what it was sent is not waited for"
    assert await asyncio.to_thread(model.closed.wait, WAIT_S)
    assert model.said < 10_000
    statuses = [503]
    async with asyncio.timeout(WAIT_S):
        while statuses[-1] == 503:  # its thread is free a moment after the model has ended
            await asyncio.sleep(0.01)
            statuses.append((await pod.ask(HELLO)).status)
    assert statuses[-1] == 200


@pytest.mark.parametrize("large", [False, True])
async def test_a_large_body_is_not_read_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Of eight such ones at once the loop would read all before it does anything else."""
    threads: list[int] = []

    def noted(*asked: Any) -> Any:
        threads.append(threading.get_ident())
        return job.read(*asked)

    monkeypatch.setattr(service, "read", noted)
    words = {"role": "user", "content": "x" * (service.LARGE_BYTES if large else 10)}
    assert (await Pod(chat(Whole())).ask({**HELLO, "messages": [words]})).status == 200
    assert (threads == [threading.get_ident()]) is not large


async def test_a_model_that_says_nothing_for_too_long() -> None:
    model = Parted()
    model.open.clear()
    try:
        words = {"role": "user", "content": "wait"}
        reply = await Pod(chat(model), timeout_s=0.2).ask({**HELLO, "messages": [words], "stream": True})
        assert (reply.status, reply.headers["x-trimtab-fault"]) == (504, "model")
    finally:
        model.open.set()


async def test_no_room() -> None:
    model, pod, running = await full_pod()
    for stream in (True, False):
        full = await pod.ask({**HELLO, "stream": stream})
        assert (full.status, full.headers["x-trimtab-fault"], full.headers["retry-after"]) == (
            503,
            "platform",
            "1",
        )
        assert full.value["error"]["type"] == "server_error"
    model.open.set()
    assert (await running).status == 200


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ([], 400, "must be a JSON object"),
        ({"model": "bot"}, 400, "`messages` is missing"),
        ({**HELLO, "model": "gpt"}, 404, "the model `gpt` does not exist; here is `bot`"),
        ({**HELLO, "model": 3}, 400, "`model` must be"),
        ({**HELLO, "stream": "yes"}, 400, "`stream` must be"),
        ({**HELLO, "messages": "hello"}, 400, "messages"),
        ({**HELLO, "temperature": "hot"}, 400, "temperature"),
        (bytes((16 << 20) + 1), 413, "larger than 16 MiB"),
    ],
    ids=range(10),
)
async def test_what_cannot_be_asked_is_said_in_openais_form(body: Any, status: int, words: str) -> None:
    reply = await Pod(chat(Whole())).ask(body)
    assert (reply.status, reply.headers["x-trimtab-fault"]) == (status, "caller"), reply
    told = reply.value["error"]
    assert words in told["message"]
    assert told["type"] == "invalid_request_error"
    assert told["code"] == ("model_not_found" if status == 404 else None)


async def test_the_list_of_models() -> None:
    pod = Pod(chat(Whole()))
    listed = (await pod.ask(path="/v1/models", method="GET")).value
    assert [model["id"] for model in listed["data"]] == ["bot", "bot.default"]
    assert (await pod.ask(path="/v1/models/bot", method="GET")).value["object"] == "model"
    for path, method, status in (
        ("/v1/models/gpt", "GET", 404),
        ("/v1/models", "POST", 405),
        (CHAT, "GET", 405),
        ("/v1/embeddings", "POST", 404),
    ):
        assert (await pod.ask({}, path, method)).status == status


async def test_an_agent_of_responses() -> None:
    wrapped = _ResponsesAgentPyfuncWrapper(Agent(), None)
    model = loaded("agent/v1/responses", RESPONSES_AGENT_INPUT_SCHEMA, RESPONSES_AGENT_OUTPUT_SCHEMA, wrapped)
    pod = Pod(model)
    asked = {"model": "bot", "input": [{"role": "user", "content": "is it?"}]}
    whole = await pod.ask(asked, "/v1/responses")
    assert whole.status == 200, whole
    assert whole.value["output"][0]["content"][0]["text"] == "so it is"
    streamed = await pod.ask({**asked, "stream": True}, "/v1/responses")
    (event,) = streamed.events
    assert event["type"] == "response.output_item.done"


async def test_openais_own_client_and_an_agent_of_responses() -> None:
    """Whole and in parts: what the client makes of them are its own types."""
    wrapped = _ResponsesAgentPyfuncWrapper(Agent(), None)
    model = loaded("agent/v1/responses", RESPONSES_AGENT_INPUT_SCHEMA, RESPONSES_AGENT_OUTPUT_SCHEMA, wrapped)
    transport = httpx2.ASGITransport(app=Pod(model).service)
    async with openai.AsyncOpenAI(
        base_url="http://pod/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=transport),
    ) as client:
        whole = await client.responses.create(model="bot", input="is it?")
        assert (whole.output_text, whole.object, whole.model) == ("so it is", "response", "bot")
        events = [e async for e in await client.responses.create(model="bot", input="is it?", stream=True)]
        assert [event.type for event in events] == ["response.output_item.done"]
        with pytest.raises(openai.NotFoundError, match="the model `gpt` does not exist"):
            await client.responses.create(model="gpt", input="is it?")
        with pytest.raises(openai.NotFoundError, match="the model answers /v1/responses"):
            await client.chat.completions.create(model="bot", messages=[{"role": "user", "content": "x"}])


class Embeds:
    """Answers in OpenAI's words."""

    def predict(self, data: Any, params: Any = None) -> Any:
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, len(data)]}],
        }


async def test_embeddings() -> None:
    texts = Schema([ColSpec("string")])
    pod = Pod(loaded("llm/v1/embeddings", texts, Schema([ColSpec("double")]), Embeds()))
    reply = await pod.ask({"model": "bot", "input": ["a"]}, "/v1/embeddings")
    assert reply.status == 200, reply
    assert reply.value["data"][0]["embedding"][0] == 0.5
    assert reply.value["model"] == "bot"
    streamed = await pod.ask({"model": "bot", "input": ["a"], "stream": True}, "/v1/embeddings")
    assert (streamed.status, "no streams" in streamed.value["error"]["message"]) == (400, True)


@pytest.mark.parametrize("task", ["agent/v2/chat", None], ids=str)
async def test_a_model_of_other_words_says_so(task: str | None) -> None:
    pod = Pod(loaded(task, Schema([ColSpec("double", "x")]), Schema([ColSpec("double")]), Embeds()))
    for path, method in ((CHAT, "POST"), ("/v1/models", "GET")):
        reply = await pod.ask(HELLO, path, method)
        assert (reply.status, "none of OpenAI's calls" in reply.value["error"]["message"]) == (404, True)
