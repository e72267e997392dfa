"""An asynchronous Gunicorn server around one MLflow model, speaking MLflow's scoring protocol.

    master (gunicorn) ── worker ── main thread: imports, loads and warms the model, then waits for signals
                                ├─ http thread: the event loop (uvicorn on uvloop)
                                ├─ batch thread: predicts together what waits, where that is allowed and pays
                                └─ predict threads: for all else, as many as requests need

There is one worker. If it dies or cannot start, the whole process ends with the cause on stderr:
restarting is the fleet's business. `__main__` is the command, `master` and `worker` the two
processes, `service` what is served. A request comes in by `http` (or `invocation`, the ASGI way), `dispatch`
sends it on as a `job`: to `batching`, or to a thread of the `pool`, where `quick` asks the model by the
`fast` path if that is sure, and `scoring` in MLflow's own words if not.

Runs on Python 3.10 and imports only `trimtab.core` of ours: it lives in the model's own environment.
"""
