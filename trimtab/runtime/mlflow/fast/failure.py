"""MLflow's answer when a model's code raises: what its stack trace shows of MLflow is learned once.

MLflow puts the stack trace into its answer, from its own scoring function down to the model's line. Of
these frames only the first is not passed through on the fast way. Its text is taken from a failure that
is made on purpose while the model loads; so a model that raises need not be asked a second time.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from types import TracebackType
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from trimtab.runtime.mlflow.answer import JSON


class Failure:
    """Writes the error that MLflow would answer with."""

    def __init__(self, model: Any, body: bytes) -> None:
        """Learn from `body`, which the model's signature must allow. Raises what shows no such failure."""
        error, cause = _failed(model, body)
        self._predict = type(model).predict.__code__
        self._error = error
        begin = _beginning(cause.__traceback__, scoring_server.invocations.__code__)
        self._first = traceback.extract_tb(begin)[0]
        again = self.of(cause)
        if again is None or again.serialize_as_json() != error.serialize_as_json():
            raise ValueError("MLflow's stack traces are of another form")

    def of(self, cause: BaseException) -> MlflowException | None:
        """MLflow's error for what a `PyFuncModel.predict` raised; None if it is not known."""
        if isinstance(cause, MlflowException) or not isinstance(cause, Exception):
            return None
        begin = _beginning(cause.__traceback__, self._predict)
        if begin is None:
            return None
        report = traceback.TracebackException(type(cause), cause, begin, compact=True)
        report.stack.insert(0, self._first)
        error = copy.copy(self._error)
        error.json_kwargs = {**error.json_kwargs, "stack_trace": "".join(report.format())}
        return error


def _failed(model: Any, body: bytes) -> tuple[MlflowException, Exception]:
    cause = LookupError("on purpose")

    def fail(_data: Any, **_params: Any) -> Any:
        raise cause

    fail.__signature__ = inspect.signature(model._predict_fn)  # type: ignore[attr-defined]
    failing = copy.copy(model)
    failing._predict_fn = fail
    try:
        scoring_server.invocations(body, JSON, failing, model.metadata.get_input_schema())
    except MlflowException as error:
        return error, cause
    raise ValueError("MLflow does not say when a model fails")


def _beginning(trace: TracebackType | None, code: Any) -> TracebackType | None:
    """The part of a traceback that begins in a function with this code."""
    while trace is not None and trace.tb_frame.f_code is not code:
        trace = trace.tb_next
    return trace
