"""Where a request meets the model: MLflow's own parsing, enforcement and answering, told apart by fault.

Importing this module imports MLflow (seconds), so nothing imports it at the top.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import load_model, scoring_server
from mlflow.version import VERSION

from trimtab.runtime.mlflow.answer import TEXT, Answer, Fault
from trimtab.runtime.mlflow.failure import said
from trimtab.runtime.mlflow.job import Job, now_s
from trimtab.runtime.mlflow.log import report


def load(folder: Path) -> Scorer:
    """The model in `folder`, loaded as MLflow's own server does. Raises anything, SystemExit too."""
    configured = getattr(scoring_server, "load_model_with_mlflow_config", None)  # since MLflow 2.18
    return Scorer((configured or load_model)(str(folder)))


class Scorer:
    """One loaded model (an MLflow `PyFuncModel`), asked in the words of MLflow's scoring protocol."""

    version: str = VERSION  # of MLflow

    def __init__(self, model: Any) -> None:
        self.model = model
        self.metadata = model.metadata
        self._input_schema = model.metadata.get_input_schema()
        self.timeout_s = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())

    def answer(self, body: bytes, content_type: str) -> Answer:
        """What MLflow's own server answers to this POST /invocations, byte for byte. Raises nothing.

        Two things differ. A model that calls `sys.exit` ends MLflow's server; here it is an error of
        the model like any other. No content type at all is a 500 there, and a 415 here.
        """
        return self.score(body, content_type).answer

    def carry_out(self, job: Job) -> None:
        """Answer a job MLflow's own way."""
        began_s = now_s()
        job.answer = job.asked_of(self)
        job.predict_s = now_s() - began_s

    def predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """What the model returns for data of its own kind, which MLflow checks first. Raises Unanswered."""
        try:
            return self.model.predict(data, params=params) if params else self.model.predict(data)
        except BaseException as error:  # SystemExit in a thread would end the event loop
            raise Unanswered(raised_by(error)) from error

    def score(self, body: bytes, content_type: str) -> Score:
        """The answer together with the exception that led to it."""
        watched = _Watched(self.model)
        try:
            found = scoring_server.invocations(body, content_type, watched, self._input_schema)
        except MlflowException as error:
            return _outcome(error, watched.asked)
        except Exception as error:  # noqa: BLE001  whatever the model returned may do anything
            report(error)
            fault = Fault.MODEL if watched.asked else Fault.CALLER
            return Score(Answer("Internal Server Error", 500, TEXT, fault), error)
        except BaseException as error:  # noqa: BLE001  SystemExit in a thread would end the event loop
            return failure(_wrapped(error), error)
        fault_found = Fault.CALLER if found.status >= 400 else None
        return Score(Answer(found.response, found.status, found.mimetype, fault_found))


class Unanswered(Exception):
    """A prediction that failed, with MLflow's answer to it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.answer = answer


@dataclass(frozen=True)
class Score:
    """An answer, and what was raised on the way to it."""

    answer: Answer
    raised: BaseException | None = None


class _Watched:
    """The model for the length of one request: remembers whether it was asked.

    It hands out the model's own method, so that a traceback in an answer has MLflow's frames and no more.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.metadata = model.metadata
        self.asked = False

    @property
    def predict(self) -> Any:
        self.asked = True
        return self._model.predict


def raised_by(error: BaseException) -> Answer:
    """MLflow's answer to what a model raised that was asked for data of its own kind; it is being handled."""
    if isinstance(error, MlflowException):
        return _outcome(error, asked=True).answer
    return failure(_wrapped(error), error).answer


def _outcome(error: MlflowException, asked: bool) -> Score:
    """MLflow's answer to an exception of its own.

    Parsing comes before the model is asked. Once it is, MLflow wraps what the model's code raises and
    adds a stack trace, while its enforcement of the schema raises a bare 400 from within.
    """
    if asked and (error.get_http_status_code() != 400 or "stack_trace" in error.json_kwargs):
        return failure(error, error.__context__ or error)
    return Score(_answer(error, Fault.CALLER), error)


def failure(error: MlflowException, raised: BaseException) -> Score:
    """The model raised `raised`: MLflow's answer, and the cause for the log."""
    return Score(replace(_answer(error, Fault.MODEL), cause=said(raised)), raised)


def _wrapped(error: BaseException) -> MlflowException:
    """What MLflow makes of an `Exception`, for those that are none."""
    message = f"The model raised {said(error)} while evaluating the request."
    return MlflowException(message, error_code=BAD_REQUEST, stack_trace=traceback.format_exc())


def _answer(error: MlflowException, fault: Fault) -> Answer:
    return Answer(error.serialize_as_json(), error.get_http_status_code(), fault=fault)
