"""Ray Serve with its own batching. Arguments: PORT CASE FOLDER."""

import sys
import time
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

PORT, CASE, FOLDER = sys.argv[1:]


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Model:
    def __init__(self, path: str, case: str, folder: str) -> None:
        sys.path.insert(0, path)
        import subject  # noqa: PLC0415 -- in the replica

        self.model = subject.load(case, folder)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def predict(self, rows: list[Any]) -> list[Any]:
        ends = np.cumsum([len(each) for each in rows])
        return [part.tolist() for part in np.split(self.model(np.concatenate(rows)), ends[:-1])]

    async def __call__(self, request: Request) -> Any:
        body = await request.json()
        return {"predictions": await self.predict(np.array(body["inputs"], dtype=np.float64))}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(PORT)})
    serve.run(Model.bind(sys.path[0], CASE, FOLDER), route_prefix="/invocations")  # type: ignore[attr-defined]
    while True:
        time.sleep(3600)
