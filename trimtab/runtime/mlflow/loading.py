"""From a folder to a model that is proven to answer: import, load, warm."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.runtime.mlflow import threads
from trimtab.runtime.mlflow.answer import JSON
from trimtab.runtime.mlflow.failure import ModelError, said
from trimtab.runtime.mlflow.log import report, say
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.stages import Stages

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.independence import Verdict
    from trimtab.runtime.mlflow.quick import Quick
    from trimtab.runtime.mlflow.scoring import Scorer

SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # set by MLflow's own server after it has loaded a model
TELEMETRY_OFF = (
    "MLFLOW_DISABLE_TELEMETRY"  # a pod calls nobody by itself; whoever wants it sets this to false
)


@dataclass(frozen=True)
class Loaded:
    """A model that has answered its own input example, if it has one."""

    scorer: Scorer
    quick: Quick | None  # None: nothing of it is sure
    verdict: Verdict | None = None


def prepare(folder: Path, pool: Pool, stages: Stages) -> Loaded:
    """Import MLflow, load the model and run its input example. Call it in the main thread.

    Some libraries insist on that thread when they are imported (signal handlers). What is loaded
    is then taken out of the garbage collector's sight: MLflow keeps 211,000 objects alive, and a
    full collection of them stops every request for 179 ms. Raises ModelError.
    """
    scorer = _load(folder, stages)
    example = _serving_example(scorer.metadata, folder)
    _warm(scorer, example, folder, pool)
    loaded = _quickened(scorer, example, pool)
    stages.complete("warm")
    gc.collect()
    gc.freeze()
    return loaded


def _quickened(scorer: Scorer, example: bytes | None, pool: Pool) -> Loaded:
    """With the fast path where there is one, and what is to be said of batching."""
    try:
        from trimtab.runtime.mlflow.quick import Quick  # noqa: PLC0415  it imports MLflow

        quick = Quick.of(scorer, example)
    except Exception as error:  # noqa: BLE001  a version of MLflow that has other insides
        say(f"no fast path with this MLflow: {said(error)}")
        quick = None
    if quick is None:
        return Loaded(scorer, None)
    verdict = pool.submit(lambda: quick.judge(example)).result()
    say(f"batching {'on' if verdict.batch else 'off'}: {verdict.why}")
    return Loaded(scorer, quick, verdict)


def _load(folder: Path, stages: Stages) -> Scorer:
    os.environ.setdefault(TELEMETRY_OFF, "true")
    step = "MLflow cannot be imported"
    try:
        from trimtab.runtime.mlflow import scoring  # noqa: PLC0415  here, because it takes seconds

        stages.complete("import")
        step = "the model cannot be loaded"
        threads.limit(folder)
        scorer = scoring.load(folder)
        os.environ[SERVING] = "true"
    except BaseException as error:  # the model's own code runs here, and may well call sys.exit
        report(error)
        raise ModelError(f"{step}: {said(error)}", where=str(folder)) from error
    stages.complete("load")
    return scorer


def _warm(scorer: Scorer, body: bytes | None, folder: Path, pool: Pool) -> None:
    """Send the example that was saved with the model the way a request goes, in a thread that predicts."""
    if body is None:
        return
    score = pool.submit(lambda: scorer.score(body, JSON)).result()
    if score.answer.status == 200:
        return
    if score.raised is not None:
        report(score.raised)
    cause = said(score.raised) if score.raised else score.answer.body
    raise ModelError(
        f"model failed on its own input example: {cause}",
        where=str(folder),
        hint="log the model again with an input_example that it can answer",
    )


def _serving_example(metadata: Any, folder: Path) -> bytes | None:
    """The exact payload that MLflow wrote when the model was saved; None if there is none."""
    info = metadata.saved_input_example_info or {}
    name = info.get("serving_input_path")
    return (folder / name).read_bytes() if name else None
