"""Triton's own clients, unchanged, against MLflow models: `python …_client.py HOST:PORT TWICE ERRS`.

Run by the Python of an environment that has them (tritonclient's pins exclude ours). Prints one JSON line.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

ADDRESS, TWICE, ERRS = sys.argv[1:4]
SMALL = np.array([[1.0, 2.0, 3.0, 4.0]])
LARGE = np.arange(1 << 17, dtype=np.float64).reshape(-1, 4)  # 1 MiB


def asked(client, module, value, name=TWICE, dtype="FP64", binary=True, **more):
    http = {"binary_data": binary} if module is tritonclient.http else {}
    given = module.InferInput("x", value.shape, dtype)
    given.set_data_from_numpy(value, **http)
    wanted = [module.InferRequestedOutput("predictions", **http)]
    return client.infer(name, [given], outputs=wanted, **more).as_numpy("predictions")


def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "allowed"


def http_client(name):
    return tritonclient.http.InferenceServerClient(f"{ADDRESS}/serving-endpoints/{name}", concurrency=16)


def grpc_client(name):
    return tritonclient.grpc.InferenceServerClient(
        ADDRESS, channel_args=[("grpc.default_authority", f"{name}.localhost")]
    )


def http():
    client = http_client(TWICE)
    by_header = tritonclient.http.InferenceServerClient(ADDRESS)
    module = tritonclient.http
    several = [client.async_infer(TWICE, [_input(module, row)]) for row in range(16)]
    return {
        "binary": asked(client, module, SMALL).tolist(),
        "json": asked(client, module, SMALL, binary=False).tolist(),
        "compressed": asked(client, module, SMALL, request_compression_algorithm="gzip").tolist(),
        "header": asked(by_header, module, SMALL, headers={"x-trimtab-endpoint": TWICE}).tolist(),
        "whole_name": asked(client, module, SMALL, name=f"{TWICE}.default").tolist(),
        "large": bool((asked(client, module, LARGE) == 2 * LARGE).all()),
        "several": [each.get_result().as_numpy("predictions").tolist() for each in several],
        "live": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(TWICE)],
        "metadata": client.get_model_metadata(TWICE)["inputs"],
        "server": client.get_server_metadata()["name"],
        "unknown": refused(client.get_model_metadata, "nobody"),
        "type": refused(asked, client, module, SMALL.astype(np.int64), dtype="INT64"),
        "shape": refused(asked, client, module, SMALL[:, :2]),
        "fails": refused(asked, http_client(ERRS), module, SMALL, name=ERRS),
        "repository": refused(client.get_model_repository_index),
    }


def grpc():
    client = grpc_client(TWICE)
    by_header = tritonclient.grpc.InferenceServerClient(ADDRESS)
    module = tritonclient.grpc
    with ThreadPoolExecutor(16) as pool:
        rows = [np.full((1, 4), float(row)) for row in range(16)]
        several = list(pool.map(lambda row: asked(client, module, row).tolist(), rows))
    return {
        "authority": asked(client, module, SMALL).tolist(),
        "header": asked(by_header, module, SMALL, headers={"x-trimtab-endpoint": TWICE}).tolist(),
        "compressed": asked(client, module, SMALL, compression_algorithm="gzip").tolist(),
        "whole_name": asked(client, module, SMALL, name=f"{TWICE}.default").tolist(),
        "large": bool((asked(client, module, LARGE) == 2 * LARGE).all()),
        "several": several,
        "live": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(TWICE)],
        "metadata": client.get_model_metadata(TWICE, as_json=True)["inputs"],
        "server": client.get_server_metadata().name,
        "unknown": refused(client.get_model_metadata, "nobody"),
        "type": refused(asked, client, module, SMALL.astype(np.int64), dtype="INT64"),
        "shape": refused(asked, client, module, SMALL[:, :2]),
        "fails": refused(asked, grpc_client(ERRS), module, SMALL, name=ERRS),
        "stream": streamed(client),
        "repository": refused(client.get_model_repository_index),
    }


def _input(module, row):
    given = module.InferInput("x", (1, 4), "FP64")
    given.set_data_from_numpy(np.full((1, 4), float(row)))
    return given


def streamed(client):
    """What a stream of requests is answered with, before there is one."""
    answers = []
    client.start_stream(lambda result, error: answers.append(str(error or result)))
    client.stop_stream()
    return answers[0]


sys.stdout.write(json.dumps({"http": http(), "grpc": grpc()}) + "\n")
