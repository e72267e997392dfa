"""What each runtime says of itself holds together."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core.protocol import Protocol
from trimtab.core.spec import Custom, ModelSpec, Resources, Source
from trimtab.runtime.catalog import CUSTOM, RUNTIMES, TRITON, VLLM, Launch, runtime_of
from trimtab.runtime.triton.server import Server, ServerUnusableError, find_server, lay_out
from trimtab.runtime.triton.shared_memory import prefix_of, sweep

OWN = ModelSpec("iris", Source("folder"), runtime="custom", custom=Custom(command=("./serve",)))
LAUNCH = Launch(OWN, Path("/m"), "127.0.0.1", 8000, Path("/s"), grpc_port=8001, metrics_port=8002)


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_can_be_told_to_start_and_begins_with_at_least_one(name: str) -> None:
    launch = replace(LAUNCH, model=replace(OWN, runtime=name))
    runtime = runtime_of(launch.model)
    assert all(runtime.command(launch))
    assert all(isinstance(value, str) for value in runtime.environment(launch).values())
    assert runtime.environment(launch)["OMP_NUM_THREADS"] == "1"
    for cpu in (0.1, 1.0, 32.0):
        assert runtime.first_concurrency(replace(OWN, resources=Resources(cpu=cpu))) >= 1
    assert runtime.ready_path.startswith("/")
    assert runtime.protocols - {Protocol.OPEN_INFERENCE_GRPC}, "it is asked over HTTP whether it is ready"
    assert runtime.grpc_port + runtime.grpc_bridged == (Protocol.OPEN_INFERENCE_GRPC in runtime.protocols)


@pytest.mark.parametrize(
    ("protocols", "said", "ready", "grpc"),
    [
        (("invocations",), "", "/ping", False),
        (("open-inference-grpc", "open-inference-rest"), "", "/v2/health/ready", True),
        (("openai",), "/up", "/up", False),
        (("openai", "invocations"), "", "/ping", False),
    ],
)
def test_a_server_of_ones_own_is_what_it_says(
    protocols: tuple[str, ...], said: str, ready: str, grpc: bool
) -> None:
    custom = Custom(command=("./serve",), protocols=protocols, ready_path=said)
    found = runtime_of(replace(OWN, custom=custom))
    assert (found.ready_path, found.grpc_port) == (ready, grpc)
    assert {protocol.value for protocol in found.protocols} == set(protocols)
    assert found.metrics_path == CUSTOM.metrics_path == ""


def test_triton_is_told_its_three_ports() -> None:
    command = TRITON.command(LAUNCH)
    told = dict(zip(command[3::2], command[4::2], strict=True))
    assert (told["--http-port"], told["--grpc-port"], told["--metrics-port"]) == ("8000", "8001", "8002")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with the wheel's layout, on the PATH; its Python is 3.9."""
    server = tmp_path / "venv/lib/python3.9/site-packages/pytriton/tritonserver"
    for path in ("bin/tritonserver", "backends/python/libtriton_python.so"):
        (server / path).parent.mkdir(parents=True, exist_ok=True)
        (server / path).touch()
    stub = server / "python_backend_stubs/3.9/triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.touch()
    programs = tmp_path / "venv/bin"
    programs.mkdir()
    for name, text in (("pytriton", "exit 1"), ("python", "echo 3.9; echo /lib/of/python")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "venv"


def test_the_wheel_is_laid_out_with_the_stub_of_its_own_python(wheel: Path, tmp_path: Path) -> None:
    server = find_server()
    assert server is not None
    assert server.python == wheel / "bin" / "python"
    for _ in range(2):  # the folder of a pod may have been there already
        laid = lay_out(server, tmp_path / "backends", {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/mine"})
    names = sorted(path.name for path in (tmp_path / "backends" / "python").iterdir())
    assert names == ["libtriton_python.so", "triton_python_backend_stub"]
    assert laid.environment["PATH"] == f"{wheel / 'bin'}:/usr/bin", "so that the stub finds its packages"
    libraries = laid.environment["LD_LIBRARY_PATH"].split(":")
    assert libraries[1:] == ["/lib/of/python", "/mine"]
    assert libraries[0].endswith("site-packages/nvidia_pytriton.libs")


def test_a_python_that_the_wheel_has_no_stub_for_is_named(wheel: Path, tmp_path: Path) -> None:
    (wheel / "bin" / "python").write_text("#!/bin/sh\necho 3.99; echo /lib\n")
    server = find_server()
    assert server is not None
    with pytest.raises(ServerUnusableError, match=r"runs models in Python 3\.9; .* is 3\.99"):
        lay_out(server, tmp_path / "backends", {})
    (wheel / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ServerUnusableError, match="cannot be asked for its version"):
        lay_out(server, tmp_path / "backends", {})


def test_nvidias_own_needs_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "opt/tritonserver/bin/tritonserver")
    laid = lay_out(server, tmp_path / "backends", {"PATH": "/usr/bin"})
    assert laid.backends == tmp_path / "opt/tritonserver/backends"
    assert laid.environment == {"PATH": "/usr/bin"}


def test_only_the_shared_memory_of_the_dead_is_swept(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above what a process id may be
    for name in (f"{prefix_of(gone)}1", f"{prefix_of(os.getpid())}1", "trimtab-triton-x-1", "others"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([f"{prefix_of(os.getpid())}1", "trimtab-triton-x-1", "others"])
    sweep(tmp_path / "not-there")


def test_vllm_is_told_each_name_of_its_endpoint() -> None:
    """Envoy hands the body on as it is, and its `model` may be either."""
    command = VLLM.command(replace(LAUNCH, called=("llm", "llm.team-a")))
    place = command.index("--served-model-name")
    assert command[place + 1 : place + 4] == ("llm", "llm.team-a", "--host")
    command = VLLM.command(LAUNCH)
    assert command[command.index("--served-model-name") + 1] == LAUNCH.model.name
