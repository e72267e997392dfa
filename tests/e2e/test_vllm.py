"""vLLM through the platform: the real server on the CPU, a model with random weights, streams of tokens.

`make test-vllm` brings the server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from trimtab.control.signals.reading import Reading, read
from trimtab.runtime.catalog import VLLM_METRICS

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]

START_S = 600  # its imports and its first compilation, on two cores that others use too
SETTINGS = (
    f"start_timeout_s={START_S}",
    "env.VLLM_CPU_KVCACHE_SPACE=1",
    "env.SERVER_ARGS=--enforce-eager --dtype float32 --max-model-len 256",
    "max_pods=1",
)
PROMPT = {"model": "llm", "prompt": "import sys", "max_tokens": 24, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def served(lasting: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A platform that serves a small Llama; its runtime is picked from the files."""
    found = shutil.which("vllm")
    assert found, "run by `make test-vllm`, which brings the server"
    folder = tmp_path_factory.mktemp("llm") / "model"
    script = Path(__file__).with_name("save_llama.py")
    command = [str(Path(found).with_name("python")), str(script), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    done = lasting.run("deploy", str(folder), "--name", "llm", *settings, timeout_s=START_S + 120)
    assert done.returncode == 0, done.stderr
    assert "vllm: its `config.json` names the architecture `LlamaForCausalLM`" in done.stderr
    return lasting


def base(platform: Any) -> str:
    return str(platform.url("llm").replace("/invocations", "/v1"))


def events(answer: requests.Response) -> Iterator[dict[str, Any]]:
    """What a stream says, as it comes."""
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


def test_completions_whole_and_in_a_stream_are_the_same(served: Any) -> None:
    whole = requests.post(f"{base(served)}/completions", json=PROMPT, timeout=120)
    assert whole.status_code == 200, whole.text
    text = whole.json()["choices"][0]["text"]
    asked = PROMPT | {"stream": True}
    with requests.post(f"{base(served)}/completions", json=asked, stream=True, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        parts = [event["choices"][0]["text"] for event in events(answer)]
    assert len(parts) > 1
    assert "".join(parts) == text


def test_streams_are_seen_in_flight_while_they_are_heard(served: Any, until: Callable[..., Any]) -> None:
    asked = PROMPT | {"stream": True, "max_tokens": 240}
    stop = threading.Event()

    def listen() -> list[int]:
        heard = []
        while not stop.is_set():
            with requests.post(f"{base(served)}/completions", json=asked, stream=True, timeout=300) as answer:
                heard.append(len(list(events(answer))))
        return heard

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(listen) for _ in range(4)]
        try:
            until(lambda: (told(served).in_flight or 0) >= 1, what="the server tells of requests")
            until(lambda: told(served).cache_used, what="and of its cache")
            until(lambda: served.status("llm")["load"].get("in_flight"), what="and Envoy of the same")
        finally:
            stop.set()
        counts = [count for caller in callers for count in caller.result()]
    assert min(counts) > 1, "in pieces; a server that is behind puts several tokens into one"


def test_chat_the_list_of_models_and_what_is_not_for_the_outside(served: Any) -> None:
    listed = requests.get(f"{base(served)}/models", timeout=60).json()
    assert [model["id"] for model in listed["data"]] == ["llm", "llm.default"], "the endpoint's names"
    asked = {"model": "llm", "messages": [{"role": "user", "content": "import"}], "max_tokens": 4}
    answer = requests.post(f"{base(served)}/chat/completions", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    by_body = f"http://{served.listen}/serving-endpoints/chat/completions"
    for name in ("llm", "llm.default"):
        assert requests.post(by_body, json=asked | {"model": name}, timeout=120).status_code == 200
    wrong = requests.post(f"{base(served)}/completions", json=PROMPT | {"model": "other"}, timeout=60)
    assert (wrong.status_code, "other" in wrong.text) == (404, True), "its own error"
    for path in ("metrics", "version", "v1/load_lora_adapter", "health"):
        url = base(served).removesuffix("v1") + path
        assert requests.get(url, timeout=30).status_code in (404, 405), path


def test_openais_own_client_works_unchanged_by_either_address(served: Any) -> None:
    python = Path(str(shutil.which("vllm"))).with_name("python")
    script = Path(__file__).with_name("openai_client.py")
    command = [str(python), str(script), served.listen, "llm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found["same"] is True
        assert found["parts"] > 1
        assert "nobody" in found["wrong"]


def test_its_metrics_become_signals(served: Any) -> None:
    found = told(served)
    assert (found.totals.completions or 0) >= 1
    assert (found.totals.request_time_s or 0) > 0
    assert None not in (found.in_flight, found.queued, found.cache_used, found.queue_time_s)
    assert found.totals.failed == 0


def told(platform: Any) -> Reading:
    """The server's page as the platform reads it."""
    page = requests.get(f"http://{platform.pods('llm')[0]['address']}/metrics", timeout=30).text
    found = read(page, VLLM_METRICS)
    assert found is not None
    return found
