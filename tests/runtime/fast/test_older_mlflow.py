"""The fast path on an MLflow that lacks what later ones have: a model's environment has its own."""

from __future__ import annotations

import json

import pytest
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from tests.runtime.fast.subjects import subjects
from trimtab.core.clock import SystemClock
from trimtab.runtime.mlflow import loading
from trimtab.runtime.mlflow.answer import JSON
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.fast.path import FastPath
from trimtab.runtime.mlflow.metrics import Meter, Metrics
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.protocols import Protocols
from trimtab.runtime.mlflow.request_log import RequestLog
from trimtab.runtime.mlflow.scoring import Scorer
from trimtab.runtime.mlflow.telemetry import Telemetry

SUBJECT = "regression"
ROW = [5.1, 3.5, 1.4, 0.2]

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_is_younger_than_2_20_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Model, "_is_signature_from_type_hint")
    monkeypatch.delattr(Model, "_is_type_hint_from_example")
    monkeypatch.delattr(PyFuncModel, "get_raw_model")
    fast = FastPath.compiled(subjects()[SUBJECT].model)
    assert fast is not None
    body = {"dataframe_split": {"columns": list(subjects()[SUBJECT].kinds), "data": [ROW]}}
    question = fast.read(json.dumps(body).encode(), JSON)
    assert question is not None
    assert fast.input([question]).to_numpy().tolist() == [ROW]
    assert fast.matrices is None


def test_other_protocols_are_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their absence is said where they are asked for."""
    monkeypatch.delattr(Model, "get_params_schema")
    monkeypatch.delattr(Model, "get_output_schema")
    pool = Pool(1, 1)
    metrics, clock = Metrics(pool), SystemClock()
    scorer = Scorer(subjects()[SUBJECT].model)
    protocols = Protocols(Meter(metrics, frozenset(), clock), Telemetry(RequestLog({}, clock)))
    protocols.open(Dispatch(scorer, pool, metrics.predict.observe), scorer, ("iris",))
    pool.close()
    assert "only MLflow's own protocol with this MLflow: AttributeError" in capsys.readouterr().err
    for path in ("/v2/models/iris/infer", "/v1/chat/completions"):
        scope = {"type": "http", "path": path, "method": "POST", "headers": []}
        assert protocols.predicts(scope) is None
        assert protocols.told(scope, b"{}").status == 501


def test_an_mlflow_of_other_insides_serves_its_own_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fast path is a help: that it cannot be made must not keep a model from serving."""

    def other(_model: object) -> None:
        raise AttributeError("not here")

    monkeypatch.setattr("trimtab.runtime.mlflow.quick.FastPath.compiled", other)
    pool = Pool(1, 1)
    loaded = loading._quickened(Scorer(subjects()[SUBJECT].model), None, pool)
    pool.close()
    assert (loaded.quick, loaded.verdict) == (None, None)
    assert "no fast path with this MLflow: AttributeError: not here" in capsys.readouterr().err
