"""LitServe with its own batching. Arguments: PORT CASE FOLDER."""

import sys
from typing import Any

import litserve
import numpy as np
import subject
from fastapi import Request

PORT, CASE, FOLDER = sys.argv[1:]


class Api(litserve.LitAPI):
    def setup(self, _device: Any) -> None:
        self.model = subject.load(CASE, FOLDER)

    def decode_request(self, request: Request) -> Any:
        rows: Any = request["inputs"]  # of this type LitServe hands over the JSON
        return np.array(rows, dtype=np.float64)

    def batch(self, inputs: Any) -> Any:
        self.ends = np.cumsum([len(rows) for rows in inputs])  # one loop asks: batch, predict, unbatch
        return np.concatenate(inputs)

    def predict(self, rows: Any) -> Any:
        return self.model(rows)

    def unbatch(self, output: Any) -> Any:
        return np.split(output, self.ends[:-1])

    def encode_response(self, output: Any) -> Any:
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.001, api_path="/invocations")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    quiet = {"generate_client_file": False, "log_level": "error"}
    server.run(host="127.0.0.1", port=int(PORT), num_api_servers=1, **quiet)
