"""The parts of one pod, put together in the worker process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trimtab.core.clock import SystemClock
from trimtab.runtime.mlflow import loading, spans
from trimtab.runtime.mlflow.batch_size import BatchSize
from trimtab.runtime.mlflow.dispatch import Dispatch, Ways
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.options import Options
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.request_log import RequestLog
from trimtab.runtime.mlflow.service import Service
from trimtab.runtime.mlflow.stages import Stages
from trimtab.runtime.mlflow.telemetry import Telemetry

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.independence import Verdict
    from trimtab.runtime.mlflow.quick import Quick


class Pod:
    """Made after the fork; `prepare`, `open` and `close` in this order."""

    def __init__(self, options: Options) -> None:
        clock = SystemClock()
        self._folder = options.model_folder
        self._name = options.stages_path.parent.name  # a fleet's pod has a folder of its own
        self._pool = Pool(options.threads, options.queue)
        self._metrics = Metrics(self._pool)
        self._stages = Stages(options.stages_path, clock, self._metrics.note_stage)
        self.service = Service(self._metrics, clock, Telemetry(RequestLog(os.environ, clock)))
        self._held_max = options.threads + options.queue
        self._called = options.called
        self._dispatch: Dispatch | None = None

    def prepare(self) -> None:
        """Import, load and warm. Raises ModelError."""
        loaded = loading.prepare(self._folder, self._pool, self._stages)
        metrics = self._metrics
        self._dispatch = Dispatch(
            loaded.quick or loaded.scorer, self._pool, metrics.predict.observe, metrics.request.observe
        )
        if loaded.quick is not None and loaded.verdict is not None and loaded.verdict.batch:
            self._batch(loaded.quick, loaded.verdict, self._dispatch)
        self.service.protocols.open(self._dispatch, loaded.scorer, self._called)

        self.service.telemetry.spans = spans.configured(self._name)

    def _batch(self, quick: Quick, verdict: Verdict, dispatch: Dispatch) -> None:
        from trimtab.runtime.mlflow.batching import Batcher  # noqa: PLC0415  it imports MLflow

        size = BatchSize(list(verdict.seen))
        ways = Ways(quick.failed, dispatch.alone, dispatch.answered, self._metrics.batch.observe)
        batcher = Batcher(quick.fast, size, ways, self._held_max)
        self._metrics.watch(batcher)
        dispatch.batch(batcher)

    def open(self) -> None:
        """Answer requests from now on."""
        assert self._dispatch is not None, "prepare comes first"
        self.service.open(self._dispatch)
        self._stages.complete("ready")

    def close(self) -> None:
        """Let no more calls begin."""
        self._pool.close()
        if self.service.telemetry.spans is not None:
            self.service.telemetry.spans.close()

    @property
    def busy(self) -> bool:
        """Whether a prediction still holds a thread."""
        return self._pool.running > 0
