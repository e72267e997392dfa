"""pytriton with Triton's dynamic batching. Arguments: PORT CASE FOLDER."""

import sys
from typing import Any

import numpy as np
import subject
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

PORT, CASE, FOLDER = sys.argv[1:]
predict = subject.load(CASE, FOLDER)


@batch
def infer(rows: Any) -> Any:
    return {"predictions": predict(rows).astype(np.float64).reshape(len(rows), -1)}


if __name__ == "__main__":
    address = {"http_address": "127.0.0.1", "http_port": int(PORT)}
    config = TritonConfig(**address, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            "iris",
            infer,
            inputs=[Tensor(name="rows", dtype=np.float64, shape=(-1,))],
            outputs=[Tensor(name="predictions", dtype=np.float64, shape=(-1,))],
            config=ModelConfig(max_batch_size=256, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
