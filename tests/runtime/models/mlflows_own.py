"""MLflow's own scoring server for several models: /NAME/invocations. Arguments: PORT NAME=FOLDER…"""

import sys

import uvicorn
from mlflow.pyfunc import scoring_server
from starlette.applications import Starlette
from starlette.routing import Mount

port, *models = sys.argv[1:]
mounts = []
for model in models:
    name, _, folder = model.partition("=")
    app = scoring_server.init(scoring_server.load_model_with_mlflow_config(folder))
    mounts.append(Mount(f"/{name}", app))
uvicorn.run(Starlette(routes=mounts), host="127.0.0.1", port=int(port), log_level="warning")
