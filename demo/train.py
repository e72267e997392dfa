"""Train a classifier of handwritten digits and register it, as a user's own script would."""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

NAME = "digits"
TREES = 700  # some 20 ms a prediction: slow enough that tens of requests a second need several pods
CASES = 200  # pictures kept back from training; each request of the demo asks about one of them


@dataclass(frozen=True)
class Trained:
    """The registered model, and a file of requests with the answers that it must give."""

    uri: str
    tracking_uri: str
    cases: Path
    first_body: str
    first_label: int  # what a person wrote
    accuracy: float  # on the pictures kept back


def train(folder: Path) -> Trained:
    """Train on scikit-learn's own digits data set (1,797 pictures, from the UCI repository).

    The registry is an SQLite file in `folder`. Every run registers another version.
    """
    # Imported here: it takes seconds, and the demo should say what it does before.
    from sklearn.datasets import load_digits  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    pictures, labels = load_digits(return_X_y=True)
    model = RandomForestClassifier(TREES, random_state=1, n_jobs=1).fit(pictures[CASES:], labels[CASES:])
    answers = [int(answer) for answer in model.predict(pictures[:CASES])]
    bodies = [json.dumps({"inputs": [picture.tolist()]}) for picture in pictures[:CASES]]
    cases = folder / "cases.jsonl"
    cases.write_text(
        "".join(
            json.dumps({"body": json.loads(body), "answer": {"predictions": [answer]}}) + "\n"
            for body, answer in zip(bodies, answers, strict=True)
        )
    )
    uri, tracking_uri = _register(model, pictures[:1], folder)
    right = sum(answer == label for answer, label in zip(answers, labels[:CASES], strict=True))
    return Trained(uri, tracking_uri, cases, bodies[0], int(labels[0]), right / CASES)


def _register(model: object, example: object, folder: Path) -> tuple[str, str]:
    """The model's URI and the tracking server's."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing of the demo leaves the machine
    warnings.simplefilter("ignore")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow  # noqa: PLC0415
    import sklearn  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(tracking_uri)
    if mlflow.get_experiment_by_name(NAME) is None:
        mlflow.create_experiment(NAME, artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model,
            name=NAME,
            signature=infer_signature(example, model.predict(example)),  # type: ignore[attr-defined]
            input_example=example,
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],  # else MLflow finds out by loading it
            skops_trusted_types=["sklearn.tree._tree.Tree"],  # made above, by us
            registered_model_name=NAME,
        )
    return f"models:/{NAME}/{logged.registered_model_version}", tracking_uri
