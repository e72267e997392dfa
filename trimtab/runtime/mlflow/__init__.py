"""An asynchronous Gunicorn server around one MLflow model, speaking MLflow's scoring protocol.

    master (gunicorn) ── worker ── main thread: imports, loads and warms the model, then waits for signals
                                ├─ http thread: the event loop (uvicorn on uvloop)
                                └─ predict threads: as many as the pod has cores

There is one worker. If it dies or cannot start, the whole process ends with the cause on stderr:
restarting is the fleet's business. `__main__` is the command, `master` and `worker` the two
processes, `service` what is served, `scoring` the one place where a request meets the model.

Runs on Python 3.10 and imports only `trimtab.core` of ours: it lives in the model's own environment.
"""
