"""A real MLflow tracking server as a pod, with a model in its registry."""

from __future__ import annotations

import orjson

from tests.kube.words import until
from trimtab.kube import Api, Json, Resource

PODS = Resource("v1", "pods")
SERVICES = Resource("v1", "services")
PORT = 5000
READY_WITHIN_S = 240.0  # a migration of its database, on a busy machine

# What a user's training script does; pip_requirements spare MLflow a look at what is imported.
TRAIN = """
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, kinds = load_iris(return_X_y=True)
for strength in (1.0, 0.1):
    model = LogisticRegression(C=strength, max_iter=1000).fit(features, kinds)
    info = mlflow.sklearn.log_model(
        model, name="model", registered_model_name="iris",
        input_example=features[:1], pip_requirements=["mlflow", "scikit-learn"],
    )
"""


# Passes all on to BEHIND for whoever shows USER and PASSWORD, as a proxy before a tracking server does.
GUARD = """
import base64, http.server, os, urllib.error, urllib.request

wanted = "Basic " + base64.b64encode(f"{os.environ['USER']}:{os.environ['PASSWORD']}".encode()).decode()

class Guard(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        if self.headers.get("authorization") != wanted:
            return self.say(401, {"www-authenticate": "Basic"}, b"who are you?")
        kept = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept")}
        asked = urllib.request.Request(os.environ["BEHIND"] + self.path, body, kept, method=self.command)
        try:
            with urllib.request.urlopen(asked, timeout=60) as told:
                self.say(told.status, told.headers, told.read())
        except urllib.error.HTTPError as error:
            self.say(error.code, error.headers, error.read())

    def say(self, status, headers, body):
        self.send_response(status)
        for name in ("content-type", "www-authenticate"):
            if headers.get(name):
                self.send_header(name, headers[name])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = answer

http.server.ThreadingHTTPServer(("", 5000), Guard).serve_forever()
"""


def pod(name: str, image: str, command: list[str], **more: object) -> Json:
    """A pod of the level `restricted` that may write to /tmp."""
    container = {
        "name": name,
        "image": image,
        "command": command,
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"cpu": "100m"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container | more],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


async def serve(api: Api, namespace: str, name: str) -> str:
    """Give the one of the namespace one more address, by a Service."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    selected = {"selector": {"app": "mlflow"}, "ports": [{"port": PORT}]}
    await api.create(SERVICES.path(namespace), service | {"spec": selected})
    return f"http://{name}.{namespace}:{PORT}"


async def guarded(api: Api, namespace: str, image: str, behind: str, user: str, password: str) -> str:
    """The address, as pods know it, of one that asks for a password before the server `behind`."""
    told = [{"name": "BEHIND", "value": behind}, {"name": "USER", "value": user}]
    told += [{"name": "PASSWORD", "value": password}]
    probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    body = pod("guard", image, ["python", "-c", GUARD], env=told, readinessProbe=probe)
    await api.create(PODS.path(namespace), body)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "guard"}}
    selected = {"selector": {"app": "guard"}, "ports": [{"port": PORT}]}
    await api.create(SERVICES.path(namespace), service | {"spec": selected})
    await until(lambda: _is_ready(api, namespace, "guard"), READY_WITHIN_S)
    return f"http://guard.{namespace}:{PORT}"


async def start(api: Api, namespace: str, image: str) -> str:
    """Start one with two versions of the model `iris`; returns its address, as pods know it."""
    command = [
        "mlflow", "server", "--host", "0.0.0.0", "--port", str(PORT), "--workers", "1",
        "--backend-store-uri", "sqlite:////tmp/mlflow.db", "--artifacts-destination", "/tmp/artifacts",
        "--allowed-hosts", "*",
    ]  # fmt: skip
    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5}
    quick = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
    ]
    await api.create(PODS.path(namespace), pod("mlflow", image, command, readinessProbe=probe, env=quick))
    address = await serve(api, namespace, "mlflow")
    await until(lambda: _is(api, namespace, "mlflow", "Running"), READY_WITHIN_S)
    await until(lambda: _is_ready(api, namespace, "mlflow"), READY_WITHIN_S)
    told = [{"name": "HOME", "value": "/tmp"}, {"name": "MLFLOW_TRACKING_URI", "value": address}]
    await api.create(PODS.path(namespace), pod("train", image, ["python", "-c", TRAIN], env=told))
    await until(lambda: _is(api, namespace, "train", "Succeeded"), READY_WITHIN_S)
    return address


async def _is(api: Api, namespace: str, name: str, phase: str) -> bool:
    status = orjson.loads(await api.get(PODS.path(namespace, name)))["status"]
    if status["phase"] == "Failed":
        raise AssertionError((await api.get(PODS.path(namespace, name, "log"))).decode())
    return bool(status["phase"] == phase)


async def _is_ready(api: Api, namespace: str, name: str) -> bool:
    status = orjson.loads(await api.get(PODS.path(namespace, name)))["status"]
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return conditions.get("Ready") == "True"
