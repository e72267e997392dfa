"""BentoML with its own batching. Environment: BENCH_CASE, BENCH_FOLDER."""

import os
from typing import Any

import bentoml
import numpy as np
import subject


@bentoml.service(workers=1)
class Service:
    def __init__(self) -> None:
        self.model = subject.load(os.environ["BENCH_CASE"], os.environ["BENCH_FOLDER"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=60_000, route="/invocations")
    def invocations(self, inputs: np.ndarray) -> np.ndarray:
        predictions: np.ndarray[Any, Any] = self.model(np.asarray(inputs, dtype=np.float64))
        return predictions
