"""The parts of one pod, put together in the worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.core.clock import SystemClock
from trimtab.runtime.mlflow import loading
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.options import Options
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.service import Service
from trimtab.runtime.mlflow.stages import Stages

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.scoring import Scorer


class Pod:
    """Made after the fork; `prepare`, `open` and `close` in this order."""

    def __init__(self, options: Options) -> None:
        clock = SystemClock()
        self._folder = options.model_folder
        self._pool = Pool(options.threads, options.queue)
        metrics = Metrics(self._pool)
        self._stages = Stages(options.stages_path, clock, metrics.note_stage)
        self.service = Service(self._pool, metrics, clock)
        self._scorer: Scorer | None = None

    def prepare(self) -> None:
        """Import, load and warm. Raises ModelError."""
        self._scorer = loading.prepare(self._folder, self._pool, self._stages)

    def open(self) -> None:
        """Answer requests from now on."""
        assert self._scorer is not None, "prepare comes first"
        self.service.open(self._scorer)
        self._stages.complete("ready")

    def close(self) -> None:
        """Let no more calls begin."""
        self._pool.close()

    @property
    def busy(self) -> bool:
        """Whether a prediction still holds a thread."""
        return self._pool.running > 0
