"""A chat model of MLflow asked by OpenAI's own client, unchanged, through the whole platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = Path(__file__).parent
BOT, AGENT = "bot", "agent"


@pytest.fixture(scope="module")
def served(lasting: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A platform that serves the model as `bot`."""
    folder = tmp_path_factory.mktemp("chat")
    command = [sys.executable, str(HERE / "save_chat.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    lasting("deploy", str(folder / "echo"), "--name", BOT)
    lasting("deploy", str(folder / "agent"), "--name", AGENT)
    return lasting


def ask(platform: Any, text: str, path: str = f"{BOT}/v1/chat/completions", **more: Any) -> requests.Response:
    body = {"model": BOT, "messages": [{"role": "user", "content": text}], **more}
    return requests.post(f"http://{platform.listen}/serving-endpoints/{path}", json=body, timeout=60)


def test_openais_own_client_works_unchanged_by_either_address(served: Any) -> None:
    command = [sys.executable, str(HERE / "openai_client.py"), served.listen, BOT, "to be or not"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found["same"] is True
        assert found["parts"] == 4
        assert "nobody" in found["wrong"]
        assert found["models"] in ([BOT, f"{BOT}.default"], None)


def test_openais_own_client_and_an_agent_of_responses(served: Any) -> None:
    """Whole and in parts, with a text and with messages, and what goes wrong."""
    address = f"http://{served.listen}/serving-endpoints/{AGENT}/v1"
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "to be or not"}]
    for asked in ("to be or not", messages):
        whole = client.responses.create(model=AGENT, input=asked)
        assert (whole.output_text, whole.object, whole.model) == ("to be or not", "response", AGENT)
        events: list[Any] = list(client.responses.create(model=AGENT, input=asked, stream=True))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert deltas == ["to", "be", "or", "not"]
        assert events[-1].type == "response.output_item.done"
    with pytest.raises(openai.InternalServerError, match="ValueError: no words"):
        client.responses.create(model=AGENT, input="raise")
    with pytest.raises(openai.NotFoundError, match="the model answers /v1/responses"):
        client.chat.completions.create(model=AGENT, messages=messages)


def test_its_names_and_the_list_of_models(served: Any) -> None:
    for path in (f"{BOT}/v1/chat/completions", "chat/completions"):
        for name in (BOT, f"{BOT}.default"):
            answer = ask(served, "hello", path, model=name)
            assert (answer.status_code, answer.json()["model"]) == (200, name)
    listed = requests.get(f"http://{served.listen}/serving-endpoints/{BOT}/v1/models", timeout=60).json()
    assert [model["id"] for model in listed["data"]] == [BOT, f"{BOT}.default"]


def test_errors_are_openais_and_say_whose_they_are(served: Any) -> None:
    for answer, status, fault, words in (
        (ask(served, "raise"), 500, "model", "ValueError: no words"),
        (ask(served, "x", temperature="hot"), 400, "caller", "temperature"),
        (ask(served, "x", f"{BOT}/v1/embeddings"), 404, "caller", "the model answers /v1/chat/completions"),
    ):
        assert (answer.status_code, answer.headers["x-trimtab-fault"]) == (status, fault), answer.text
        assert words in answer.json()["error"]["message"]


def test_mlflows_own_protocol_beside_it(served: Any) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    answer = requests.post(served.url(BOT), json=body, timeout=60).json()
    assert answer["choices"][0]["message"]["content"] == "hello"
    tensor = {"inputs": [{"name": "messages", "datatype": "BYTES", "shape": [1], "data": ["hello"]}]}
    url = served.url(BOT).replace("/invocations", f"/v2/models/{BOT}/infer")
    refused = requests.post(url, json=tensor, timeout=60)
    assert (refused.status_code, "can be asked by /invocations" in refused.json()["error"]) == (501, True)
