"""Which of OpenAI's calls a model can answer, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab.runtime.mlflow import routes


@dataclass(frozen=True)
class Call:
    """`key` is what a body must have; `chunk` the `object` of a part of a stream, empty if there are none."""

    route: str
    key: str
    prefix: str  # of an answer's id, where the model gives none
    chunk: str = ""


CHAT = Call(routes.CHAT, "messages", "chatcmpl-", "chat.completion.chunk")
COMPLETIONS = Call(routes.COMPLETIONS, "prompt", "cmpl-", "text_completion")
RESPONSES = Call(routes.RESPONSES, "input", "resp_", "response.completed")
EMBEDDINGS = Call(routes.EMBEDDINGS, "input", "")

# The `task` in a model's metadata, as MLflow writes it. Not `agent/v2/chat`: a ChatAgent answers with
# messages of its own form, of which a chat completion could show the last one only.
_TASKS = {
    "agent/v1/chat": CHAT,
    "llm/v1/chat": CHAT,
    "llm/v1/completions": COMPLETIONS,
    "llm/v1/embeddings": EMBEDDINGS,
    "agent/v1/responses": RESPONSES,
}
# Else what the names of its inputs and outputs say.
_SIGNATURES = (
    ("messages", "choices", CHAT),
    ("prompt", "choices", COMPLETIONS),
    ("input", "data", EMBEDDINGS),
)


def call_of(metadata: Any) -> Call | None:
    """The call that an MLflow model answers; None if it answers in other words."""
    task = (metadata.metadata or {}).get("task")
    if task is not None:
        return _TASKS.get(task)
    inputs, outputs = (
        _names(schema) for schema in (metadata.get_input_schema(), metadata.get_output_schema())
    )
    for given, told, call in _SIGNATURES:
        if given in inputs and told in outputs:
            return call
    return None


def fields_of(metadata: Any) -> frozenset[str]:
    """The fields of a body that a model's signature knows; none if it has no signature."""
    params = metadata.get_params_schema()
    return frozenset(_names(metadata.get_input_schema())) | frozenset(params.param_dict() if params else ())


def _names(schema: Any) -> list[str]:
    return schema.input_names() if schema is not None and schema.has_input_names() else []
