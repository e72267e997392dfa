"""Judges autoscalers: the same arrivals and service demands for each, a virtual clock, exact limits.

`traces` and `load` make the arrivals, `models` says what a pod can do, `engine` is the queue and the
pods, `policies` are the autoscalers, `run` lets one policy meet one load, `score` says how it went.
"""
