"""What a model server may speak. Envoy routes only what a revision's runtime speaks."""

from __future__ import annotations

from enum import Enum


class Protocol(Enum):
    """A protocol of a runtime; the value is how it is written in JSON and labels."""

    INVOCATIONS = "invocations"  # MLflow's scoring protocol: POST /invocations
    OPEN_INFERENCE_REST = "open-inference-rest"  # /v2/…
    OPEN_INFERENCE_GRPC = "open-inference-grpc"  # inference.GRPCInferenceService
    OPENAI = "openai"  # /v1/chat/completions and its kin, streams included
