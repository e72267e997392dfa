"""Triton's own clients, unchanged, against the platform: `python triton_client.py HOST:PORT ENDPOINT`.

Run by the Python of an environment that has them (tritonclient's pins exclude ours). Prints one JSON line.
"""

import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

ADDRESS, ENDPOINT = sys.argv[1:3]
HEADERS = {"x-trimtab-endpoint": ENDPOINT}
SMALL = np.array([[1.0, 2.0, 3.0]], np.float32)
LARGE = np.arange(1 << 18, dtype=np.float32).reshape(1, -1)  # 1 MiB


def asked(module, client, value, binary=True, **more):
    given = module.InferInput("x", value.shape, "FP32")
    http = module is tritonclient.http
    given.set_data_from_numpy(value, **({"binary_data": binary} if http else {}))
    wanted = module.InferRequestedOutput("y", **({"binary_data": binary} if http else {}))
    return client.infer("double", [given], outputs=[wanted], **more).as_numpy("y")


def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "allowed"


def http():
    by_path = tritonclient.http.InferenceServerClient(f"{ADDRESS}/serving-endpoints/{ENDPOINT}")
    by_header = tritonclient.http.InferenceServerClient(ADDRESS)
    return {
        "binary": asked(tritonclient.http, by_path, SMALL).tolist(),
        "json": asked(tritonclient.http, by_path, SMALL, binary=False).tolist(),
        "large": bool((asked(tritonclient.http, by_path, LARGE) == 2 * LARGE).all()),
        "header": asked(tritonclient.http, by_header, SMALL, headers=dict(HEADERS)).tolist(),
        "host": asked(
            tritonclient.http, by_header, SMALL, headers={"Host": f"{ENDPOINT}.localhost"}
        ).tolist(),
        "compressed": asked(
            tritonclient.http,
            by_path,
            SMALL,
            request_compression_algorithm="gzip",
            response_compression_algorithm="gzip",
        ).tolist(),
        "live": [by_path.is_server_live(), by_path.is_server_ready(), by_path.is_model_ready("double")],
        "metadata": by_path.get_model_metadata("double")["inputs"][0]["name"],
        "unknown": refused(by_path.get_model_metadata, "nobody"),
        "repository": refused(by_path.get_model_repository_index),
        "unload": refused(by_path.unload_model, "double"),
        "statistics": refused(by_path.get_inference_statistics),
        "of_one": refused(by_path.get_inference_statistics, "double"),
        "memory": refused(by_path.register_system_shared_memory, "a", "/a", 8),
        "trace": refused(by_path.get_trace_settings),
        "log": refused(by_path.update_log_settings, {"log_verbose_level": 9}),
    }


def grpc():
    by_header = tritonclient.grpc.InferenceServerClient(ADDRESS)
    by_authority = tritonclient.grpc.InferenceServerClient(
        ADDRESS, channel_args=[("grpc.default_authority", f"{ENDPOINT}.localhost")]
    )
    return {
        "header": asked(tritonclient.grpc, by_header, SMALL, headers=dict(HEADERS)).tolist(),
        "authority": asked(tritonclient.grpc, by_authority, SMALL).tolist(),
        "large": bool((asked(tritonclient.grpc, by_authority, LARGE) == 2 * LARGE).all()),
        "stream": streamed(by_authority),
        "live": [by_authority.is_server_live(), by_authority.is_model_ready("double")],
        "metadata": by_authority.get_model_metadata("double").inputs[0].name,
        "unknown": refused(by_authority.get_model_metadata, "nobody"),
        "repository": refused(by_authority.get_model_repository_index),
        "unload": refused(by_authority.unload_model, "double"),
        "statistics": refused(by_authority.get_inference_statistics),
        "memory": refused(by_authority.register_system_shared_memory, "a", "/a", 8),
        "trace": refused(by_authority.get_trace_settings),
        "log": refused(by_authority.update_log_settings, {"log_verbose_level": 9}),
    }


def streamed(client):
    """Three requests over one stream, in order."""
    answers = []
    client.start_stream(lambda result, error: answers.append(error or result.as_numpy("y").tolist()))
    for factor in (1, 2, 3):
        given = tritonclient.grpc.InferInput("x", SMALL.shape, "FP32")
        given.set_data_from_numpy(factor * SMALL)
        client.async_stream_infer("double", [given])
    client.stop_stream()
    return answers


sys.stdout.write(json.dumps({"http": http(), "grpc": grpc()}) + "\n")
