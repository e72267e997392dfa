"""OpenAI's API in front of an MLflow model that answers in its words: MLflow's chat models and agents.

A call is a request of `/invocations` with the same body, which MLflow hands to such a model as it is, and
its answer is the model's own; `calls` says which call a model has, `job` what is put right on both ways.
`stream` asks a model for its answer in parts, `events` sends them.
https://platform.openai.com/docs/api-reference
"""
