"""The routes by which requests for a prediction come, as metrics name them; the catalog knows them too."""

INVOCATIONS = "/invocations"
INFER = "/v2/models/{model}/infer"
GRPC = "/inference.GRPCInferenceService/"
GRPC_INFER = f"{GRPC}ModelInfer"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
OPENAI = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)
PREDICTIONS = (INVOCATIONS, INFER, GRPC_INFER, *OPENAI)
