"""A request for inference on its way to the model: the same way as that of `/invocations`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from trimtab.runtime.mlflow.answer import JSON, Answer, Fault
from trimtab.runtime.mlflow.failure import said
from trimtab.runtime.mlflow.fast.path import FastPath, Question
from trimtab.runtime.mlflow.job import Job, Waiter
from trimtab.runtime.mlflow.log import report
from trimtab.runtime.mlflow.open_inference.messages import Refused, Request, Tensor, Wanted
from trimtab.runtime.mlflow.open_inference.outputs import tensors_of
from trimtab.runtime.mlflow.open_inference.signature import Inputs, Spec, given, question
from trimtab.runtime.mlflow.scoring import Scorer, Unanswered


class Wire(Protocol):
    """How one request is read and its answer written: `rest` or `grpc`. Both raise Refused."""

    def read(self) -> Request: ...

    def written(self, request: Request, outputs: list[tuple[Tensor, Wanted]]) -> Answer: ...


class InferJob(Job):
    """Read, and written, where the model is asked: a thread, for it may be megabytes."""

    __slots__ = ("_data", "_inputs", "_request", "_specs", "_wire")

    def __init__(self, wire: Wire, inputs: Inputs, specs: tuple[Spec, ...], answered: Waiter) -> None:
        super().__init__(b"", "", answered)
        self._wire = wire
        self._inputs = inputs
        self._specs = specs
        self._request: Request | None = None
        self._data: Any = None

    def read(self, fast: FastPath) -> Question | None:
        """What is asked, for the fast path; None if it is refused, or not sure."""
        try:
            request = self._opened()
            return question(fast, self._data, dict(request.parameters) or None)
        except Exception:  # noqa: BLE001  `asked_of` says why; here it would end the thread of batches
            return None

    def asked_of(self, scorer: Scorer) -> Answer:
        """The answer by MLflow's own way. Raises nothing."""
        try:
            request = self._opened()
            raw = scorer.predict(given(self._data), dict(request.parameters) or None)
        except Refused as refused:
            return refusal(refused)
        except Unanswered as unanswered:
            return unanswered.answer
        except Exception as error:  # noqa: BLE001  nobody would answer the request otherwise
            report(error)
            return _failed(f"the request could not be read: {said(error)}", Fault.PLATFORM)
        return self.written(raw, str)

    def written(self, raw: Any, _plain: Callable[[Any], str]) -> Answer:
        """What the model returned, as the caller wants it. Raises nothing."""
        assert self._request is not None
        try:
            return self._wire.written(self._request, self._chosen(tensors_of(raw, self._specs)))
        except Refused as refused:
            return refusal(refused)
        except Exception as error:  # noqa: BLE001  what a model returns may do anything
            return _failed(f"what the model returned cannot be written: {said(error)}", Fault.MODEL)

    def _opened(self) -> Request:
        if self._request is None:
            request = self._wire.read()
            self._data = self._inputs.read(request.inputs)
            self._request = request
        return self._request

    def _chosen(self, outputs: list[Tensor]) -> list[tuple[Tensor, Wanted]]:
        assert self._request is not None
        if not self._request.wanted:
            return [(tensor, Wanted(tensor.name, self._request.binary)) for tensor in outputs]
        by_name = {tensor.name: tensor for tensor in outputs}
        for wanted in self._request.wanted:
            if wanted.name not in by_name:
                raise Refused(f"unexpected output {wanted.name!r}; the model's are {', '.join(by_name)}")
        return [(by_name[wanted.name], wanted) for wanted in self._request.wanted]


def _failed(words: str, fault: Fault) -> Answer:
    return Answer(json.dumps({"message": words}), 500, JSON, fault)


def refusal(refused: Refused) -> Answer:
    """A refusal as an answer; `service` words it as the protocol does."""
    return Answer(json.dumps({"message": refused.message}), refused.status, JSON, Fault.CALLER)
