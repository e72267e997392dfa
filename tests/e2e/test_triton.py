"""Triton through the platform: the real server, a Python-backend model made on the spot, its own clients.

`make test-triton` brings the server and the clients.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from trimtab.control.signals.reading import read
from trimtab.core.spec import ModelSpec, Source
from trimtab.host.files import socket_path
from trimtab.runtime.catalog import TRITON, TRITON_METRICS, Launch
from trimtab.runtime.triton.server import PROGRAM, find_server, lay_out

pytestmark = [pytest.mark.e2e, pytest.mark.triton]

MODEL = """
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, x):
        if x.flat[0] == -1:
            return pb.InferenceResponse([], error=pb.TritonError("no such flower"))
        if x.flat[0] == -3:
            raise ValueError("a bug")
        if x.flat[0] == -2:
            time.sleep(0.05)
        return pb.InferenceResponse([pb.Tensor("y", ({factor} * x).astype("float32"))])
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }]
dynamic_batching { }
"""
ENDPOINT = "double"
ONE_POD = ("--set", "max_pods=1", "--set", "env.SERVER_ARGS=--http-thread-count=3")


def repository(folder: Path, factor: int = 2, source: str = MODEL) -> Path:
    """A model repository with the one model `double`."""
    version = folder / "double" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(source.replace("{factor}", str(factor)))
    (version.parent / "config.pbtxt").write_text(CONFIG)
    return folder


def body(first: float = 1.0) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [first, 2.0]}]}


@pytest.fixture(scope="module")
def served(lasting: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A platform that serves the model; its runtime is picked from the files."""
    found = shutil.which("pytriton")
    assert found, "run by `make test-triton`, which brings the server"
    folder = tmp_path_factory.mktemp("triton")
    deployed = lasting("deploy", str(repository(folder / "repository")), "--name", ENDPOINT, *ONE_POD)
    assert deployed["endpoint"]["spec"]["models"][0]["runtime"] == "triton"
    return lasting


def infer(platform: Any, first: float = 1.0) -> requests.Response:
    url = platform.url(ENDPOINT).replace("/invocations", "/v2/models/double/infer")
    return requests.post(url, json=body(first), timeout=60)


def record(platform: Any) -> dict[str, Any]:
    """What the fleet wrote down of the one ready pod."""
    (pod,) = platform.pods(ENDPOINT)
    return dict(json.loads((platform.home / "pods" / pod["id"] / "pod.json").read_text()))


def test_the_command_for_nvidias_image_starts_the_real_server(
    tmp_path: Path, until: Callable[..., Any]
) -> None:
    """As in a pod on Kubernetes: nothing of ours is beside it, only the program and the model."""
    server = find_server()
    assert server is not None
    laid = lay_out(server, tmp_path / "backends", os.environ)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / PROGRAM).symlink_to(server.program)
    http, grpc, metrics = (free_port() for _ in range(3))
    further = f"--backend-directory={laid.backends}"  # of the wheel; NVIDIA's finds its own
    model = ModelSpec("double", Source("models:/m/1"), "triton", env=(("SERVER_ARGS", further),))
    link = tmp_path / "served"
    link.symlink_to(repository(tmp_path / "repository"))
    launch = Launch(model, link, "127.0.0.1", http, tmp_path / "stages", grpc, metrics, stock_image=True)
    environment = laid.environment | TRITON.environment(launch)
    with subprocess.Popen([str(programs / PROGRAM), *TRITON.command(launch)[1:]], env=environment) as started:
        try:
            url = f"http://127.0.0.1:{http}"
            until(lambda: answers(url + TRITON.ready_path), what="it is ready")
            answer = requests.post(f"{url}/v2/models/double/infer", json=body(3.0), timeout=60)
            assert answer.json()["outputs"][0]["data"] == [6.0, 4.0]
            page = requests.get(f"http://127.0.0.1:{metrics}{TRITON.metrics_path}", timeout=60).text
            assert "nv_inference_count" in page
            with socket.create_connection(("127.0.0.1", grpc), timeout=10):
                pass
        finally:
            started.terminate()
            started.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def test_its_own_clients_work_unchanged_and_reach_nothing_but_the_protocol(served: Any) -> None:
    python = Path(str(shutil.which("pytriton"))).with_name("python")
    script = Path(__file__).with_name("triton_client.py")
    command = [str(python), str(script), served.listen, ENDPOINT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    doubled = [[2.0, 4.0, 6.0]]
    for protocol, ways in (
        ("http", ("binary", "json", "header", "host", "compressed")),
        ("grpc", ("header", "authority")),
    ):
        found = told[protocol]
        assert [found[way] for way in ways] == [doubled] * len(ways)
        assert found["large"] is True
        assert all(found["live"])
        assert found["metadata"] == "x"
        assert "unknown model" in found["unknown"], "its own words"
        hidden = [found[name] for name in ("repository", "unload", "statistics", "memory", "trace", "log")]
        assert all("does not serve this path" in words for words in hidden), hidden
    assert "does not serve this path" in told["http"]["of_one"]
    assert told["grpc"]["stream"] == [[[n * 2.0 for n in (1 * k, 2 * k, 3 * k)]] for k in (1, 2, 3)]


def test_an_error_of_the_model_is_the_protocols_own(served: Any) -> None:
    answer = infer(served, -1.0)
    assert answer.status_code == 500
    assert "no such flower" in answer.json()["error"]
    assert answer.headers["x-trimtab-fault"] == "model"


def test_its_metrics_become_signals(served: Any) -> None:
    page = requests.get(f"http://127.0.0.1:{record(served)['metrics_port']}/metrics", timeout=10).text
    before = read(page, TRITON_METRICS)
    assert before is not None
    for _ in range(3):
        assert infer(served).ok
    assert infer(served, -1.0).status_code == 500  # an answer of the model's, to Triton
    assert infer(served, -3.0).status_code == 500
    page = requests.get(f"http://127.0.0.1:{record(served)['metrics_port']}/metrics", timeout=10).text
    after = read(page, TRITON_METRICS)
    assert after is not None
    assert (after.totals.completions or 0) - (before.totals.completions or 0) == 5
    assert (after.totals.model_faults or 0) - (before.totals.model_faults or 0) == 1
    assert (after.queue_time_s or 0) > (before.queue_time_s or 0)
    assert (after.executions or 0) - (before.executions or 0) in range(3, 6)
    assert after.queued == 0


def test_who_uses_rest_alone_is_given_the_limit(served: Any, until: Callable[..., Any]) -> None:
    """What gRPC leaves idle goes to REST's cluster, and their parts together are the pod's limit."""
    stop = threading.Event()

    def ask() -> int:
        failed = 0
        while not stop.is_set():
            failed += not infer(served, -2.0).ok
        return failed

    def limits() -> dict[str, int]:
        return {
            name: limit for name, limit in envoy_limits(served).items() if name.startswith("default/double/")
        }

    revision = served.status(ENDPOINT)["revisions"][0]
    key, target = f"default/double/r{revision['number']}", revision["target_concurrency"]
    with ThreadPoolExecutor(12) as pool:
        callers = [pool.submit(ask) for _ in range(12)]
        try:
            until(lambda: limits()[key] >= target > 1, what="REST has all of the limit")
        finally:
            stop.set()
        assert sum(caller.result() for caller in callers) == 0
    assert limits()[f"{key}/grpc"] == 1


def envoy_limits(platform: Any) -> dict[str, int]:
    """Requests that a pod may hold by cluster, as Envoy has it in force."""
    socket = str(socket_path(platform.home, "envoy-admin.sock"))
    url = "http://envoy/config_dump?resource=dynamic_active_clusters"
    command = ["curl", "-s", "--unix-socket", socket, url]
    dump = json.loads(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    clusters = [config["cluster"] for config in dump["configs"]]
    return {
        cluster["name"]: cluster["circuit_breakers"]["per_host_thresholds"][0]["max_connections"]
        for cluster in clusters
    }


def test_an_update_fails_no_request_of_either_protocol(
    served: Any, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """The old pod is drained of REST and of gRPC, each by its own cluster's count."""
    python = Path(str(shutil.which("pytriton"))).with_name("python")
    stop = tmp_path / "stop"
    loop = textwrap.dedent("""
        import pathlib, sys
        import numpy as np
        import tritonclient.grpc as client
        x = np.array([[1.0, 2.0]], np.float32)
        given = client.InferInput("x", x.shape, "FP32")
        given.set_data_from_numpy(x)
        channel = client.InferenceServerClient(sys.argv[1])
        answers = set()
        while not pathlib.Path(sys.argv[2]).exists():
            found = channel.infer("double", [given], headers={"x-trimtab-endpoint": "double"})
            answers.add(float(found.as_numpy("y")[0][0]))
        print(sorted(answers))
    """)
    command = [str(python), "-c", loop, served.listen, str(stop)]
    before = served.pids(ENDPOINT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as grpc:
        try:
            served("deploy", str(repository(tmp_path / "triple", factor=3)), "--name", ENDPOINT)
            until(lambda: infer(served).json()["outputs"][0]["data"] == [3.0, 6.0], what="it triples")
            until(lambda: not before & alive(before), what="the old pod has gone")
        finally:
            stop.touch()
        out, errors = grpc.communicate(timeout=60)
    assert grpc.returncode == 0, errors
    assert out.strip() in ("[2.0, 3.0]", "[3.0]"), out


def alive(processes: set[int]) -> set[int]:
    return {process for process in processes if Path(f"/proc/{process}").exists()}


def test_a_pod_that_is_killed_is_replaced_and_its_shared_memory_swept(
    served: Any, until: Callable[..., Any]
) -> None:
    (killed,) = served.pids(ENDPOINT)
    assert regions(killed), "the Python backend has some"
    os.kill(killed, signal.SIGKILL)
    until(lambda: served.pids(ENDPOINT) - {killed}, what="another pod is ready")
    until(lambda: infer(served).ok, what="it answers")
    assert not regions(killed)
    until(lambda: not served.strays(ENDPOINT), what="nothing of the old one is left")


def test_a_pod_whose_worker_died_is_replaced(served: Any, until: Callable[..., Any]) -> None:
    """Triton calls itself and the model ready for ever, and fails every request."""
    (pod,) = served.pids(ENDPOINT)
    (stub,) = [child.pid for child in psutil.Process(pod).children()]
    os.kill(stub, signal.SIGKILL)
    assert infer(served).status_code == 500
    until(lambda: served.pids(ENDPOINT) - {pod}, what="another pod is ready")
    until(lambda: infer(served).ok, what="it answers")
    assert f"lost its worker process {stub}" in (served.home / "control.log").read_text()


def regions(process: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"trimtab-triton-{process}-*")]


def test_it_outlives_the_control_plane_and_is_adopted_with_its_ports(
    served: Any, until: Callable[..., Any]
) -> None:
    before = record(served)
    os.kill(served.control_pid(), signal.SIGKILL)
    served.up()
    until(lambda: served.pids(ENDPOINT) == {before["process_id"]}, what="the same pod is ready")
    assert infer(served).ok
    ports = ("port", "grpc_port", "metrics_port")
    assert [record(served)[port] for port in ports] == [before[port] for port in ports]
    assert "--http-thread-count=3" in psutil.Process(before["process_id"]).cmdline(), "as SERVER_ARGS says"


def test_a_model_that_mlflow_registered_for_triton_is_served(served: Any, tmp_path: Path) -> None:
    folder = repository(tmp_path / "logged")
    (folder / "MLmodel").write_text("flavors:\n  triton:\n    data: double\n")
    deployed = served("deploy", str(folder), "--name", "logged")
    assert deployed["endpoint"]["spec"]["models"][0]["runtime"] == "triton"
    url = served.url("logged").replace("/invocations", "/v2/models/double/ready")
    assert requests.get(url, timeout=30).status_code == 200
    served("delete", "logged")


def test_a_model_that_cannot_be_loaded_fails_with_its_own_words(served: Any, tmp_path: Path) -> None:
    broken = repository(tmp_path / "broken", source="import no_such_module_at_all\n")
    done = served.run("deploy", str(broken), "--name", "broken")
    assert done.returncode == 1
    assert "no_such_module_at_all" in done.stderr
    served("delete", "broken")
