"""One small model of each flavour, trained and saved on the spot, with a signature and an example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import spacy
import torch
import xgboost
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

ROWS, SPECIES = load_iris(return_X_y=True, as_frame=True)
ROWS.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]  # LightGBM refuses others
SINGLES = ROWS.to_numpy(np.float32)

# What a model needs is not asked of a process of its own: that takes ten seconds each.
NOTHING: dict[str, list[str]] = {"pip_requirements": []}

Save = Callable[[Path], None]


def _sklearn_mixed(folder: Path) -> None:
    rows = ROWS.assign(colour=np.where(ROWS.petal_width > 1, "blue", "white"))
    encoded = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), remainder="passthrough"
    )
    model = make_pipeline(encoded, RandomForestClassifier(5, random_state=0)).fit(rows, SPECIES)
    signature = infer_signature(rows, model.predict_proba(rows))
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=signature,
        input_example=rows[:2],
        pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
        **NOTHING,
    )


def _xgboost(folder: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1).fit(ROWS, SPECIES)
    signature = infer_signature(ROWS, model.predict(ROWS))
    mlflow.xgboost.save_model(model, folder, signature=signature, input_example=ROWS[:2], **NOTHING)


def _booster(folder: Path) -> None:
    params = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    model = xgboost.train(params, xgboost.DMatrix(ROWS, SPECIES), num_boost_round=4)
    signature = infer_signature(ROWS, model.predict(xgboost.DMatrix(ROWS)))
    mlflow.xgboost.save_model(model, folder, signature=signature, input_example=ROWS[:2], **NOTHING)


def _lightgbm(folder: Path) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(ROWS, SPECIES)
    signature = infer_signature(ROWS, model.predict(ROWS))
    mlflow.lightgbm.save_model(model, folder, signature=signature, input_example=ROWS[:2], **NOTHING)


def _lightgbm_booster(folder: Path) -> None:
    params = {"objective": "regression", "num_threads": 1, "verbose": -1}
    model = lightgbm.train(params, lightgbm.Dataset(ROWS, SPECIES), num_boost_round=5)
    signature = infer_signature(ROWS, model.predict(ROWS))
    mlflow.lightgbm.save_model(model, folder, signature=signature, input_example=ROWS[:2], **NOTHING)


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def _pytorch(folder: Path) -> None:
    signature = infer_signature(SINGLES, np.zeros((1, 3), np.float32))
    mlflow.pytorch.save_model(_network(), folder, signature=signature, input_example=SINGLES[:2], **NOTHING)


def _pytorch_table(folder: Path) -> None:
    rows = ROWS.astype("float32")
    signature = infer_signature(rows, np.zeros((1, 3), np.float32))
    mlflow.pytorch.save_model(
        _network(),
        folder,
        signature=signature,
        input_example=rows[:2],
        serialization_format="pickle",
        **NOTHING,
    )


def _onnx(folder: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(SINGLES, SPECIES)
    made = to_onnx(model, SINGLES[:1], options={"zipmap": False})
    signature = infer_signature(SINGLES, np.zeros((1, 3), np.float32))
    mlflow.onnx.save_model(made, folder, signature=signature, input_example=SINGLES[:2], **NOTHING)


def _onnx_named(folder: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(SINGLES, SPECIES)
    made = to_onnx(model, SINGLES[:1], options={"zipmap": False})
    inputs = Schema([TensorSpec(np.dtype("float32"), (-1, 4), made.graph.input[0].name)])
    example = {made.graph.input[0].name: SINGLES[:2]}
    mlflow.onnx.save_model(made, folder, signature=ModelSignature(inputs), input_example=example, **NOTHING)


def _spacy(folder: Path) -> None:
    nlp = spacy.blank("en")
    categories = nlp.add_pipe("textcat")
    for label in ("good", "bad"):
        categories.add_label(label)
    nlp.initialize()
    signature = ModelSignature(Schema([ColSpec("string", "text")]))
    example = pd.DataFrame({"text": ["fine"]})
    mlflow.spacy.save_model(nlp, folder, signature=signature, input_example=example, **NOTHING)


class Scaled(mlflow.pyfunc.PythonModel):
    """Its answer depends on its params, and tells which columns there are."""

    def predict(self, context, model_input, params=None):  # a hint would be taken for a signature
        scaled = model_input[["x"]] * params["scale"]
        seen = ",".join(model_input.columns)
        return scaled.assign(when=model_input.get("when"), seen=seen, top=params["top"])


class Shouts(mlflow.pyfunc.PythonModel):
    """Its signature is its type hint."""

    def predict(self, model_input: list[str]) -> list[str]:
        return [text.upper() for text in model_input]


def _pyfunc_params(folder: Path) -> None:
    columns = [
        ColSpec("double", "x"),
        ColSpec("datetime", "when", required=False),
        ColSpec("long", "extra", required=False),
    ]
    params = ParamSchema([ParamSpec("scale", "double", 1.0), ParamSpec("top", "long", 3)])
    example = pd.DataFrame({"x": [1.5], "when": pd.to_datetime(["2026-01-02"]), "extra": [1]})
    mlflow.pyfunc.save_model(
        folder,
        python_model=Scaled(),
        signature=ModelSignature(Schema(columns), params=params),
        input_example=(example, {"scale": 2.0, "top": 3}),
        **NOTHING,
    )


def _pyfunc_type_hint(folder: Path) -> None:
    mlflow.pyfunc.save_model(folder, python_model=Shouts(), input_example=["quiet"], **NOTHING)


MODELS: dict[str, Save] = {
    "sklearn": _sklearn_mixed,
    "xgboost": _xgboost,
    "xgboost booster": _booster,
    "lightgbm": _lightgbm,
    "lightgbm booster": _lightgbm_booster,
    "pytorch": _pytorch,
    "pytorch table": _pytorch_table,
    "onnx": _onnx,
    "onnx named": _onnx_named,
    "spacy": _spacy,
    "pyfunc with params": _pyfunc_params,
    "pyfunc type hint": _pyfunc_type_hint,
}
"""By name: what saves it into a folder that is not there yet."""
