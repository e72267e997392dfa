"""The Open Inference Protocol (KServe's v2) in front of an MLflow model, over REST and gRPC.

    rest ──┐                                                       ┌── rest
           ├─▶ messages ─▶ signature: the model's input ─▶ model ─▶ outputs ─▶ messages ─┤
    grpc ──┘                                                       └── grpc

`rest` and `grpc` read and write what is on the wire, `datatypes` the elements of a tensor. `signature` makes
of the tensors what `/invocations` would hand to the model, and says what has no sound translation; `outputs`
makes tensors of what the model returns. `job` is a request on the same way to the model as one of
`/invocations`: batched with those, by the fast path or MLflow's own. `service` answers the calls.
https://github.com/kserve/open-inference-protocol, and Triton's extension for binary tensors.
"""
