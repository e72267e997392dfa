"""A bare FastAPI app on uvloop that calls the model. Arguments: PORT CASE FOLDER."""

import sys
from typing import Any

import numpy as np
import subject
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

port, case, folder = sys.argv[1:]
predict = subject.load(case, folder)
app = FastAPI()


def answer(body: dict[str, Any]) -> dict[str, Any]:
    rows = body["dataframe_split"]["data"] if "dataframe_split" in body else body["inputs"]
    return {"predictions": predict(np.array(rows, dtype=np.float64)).tolist()}


if case == "sleep":  # what blocks belongs into a thread

    @app.post("/invocations")
    def invocations(body: dict[str, Any]) -> JSONResponse:
        return JSONResponse(answer(body))
else:

    @app.post("/invocations")
    async def invocations_at_once(request: Request) -> JSONResponse:
        return JSONResponse(answer(await request.json()))


@app.get("/ping")
async def ping() -> str:
    return "ok"


uvicorn.run(app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", access_log=False)
