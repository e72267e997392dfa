"""Which runtime serves what: picked from the files, or refused by name and with reasons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.control.picking import missing_problems, pick_runtime
from trimtab.core.errors import InvalidInput
from trimtab.core.spec import Custom, EndpointSpec, ModelSpec, Source
from trimtab.runtime.catalog import VLLM, Launch

PYFUNC = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n  sklearn:\n    code: null\n"
TRITON = "flavors:\n  triton:\n    data: double\n"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder with the given files."""

    def make(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_json", ".json").replace("_pbtxt", ".pbtxt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


LLAMA = {"config_json": json.dumps({"architectures": ["LlamaForCausalLM"]}), "tokenizer_json": "{}"}


@pytest.mark.parametrize(
    ("files", "runtime"),
    [
        ({"MLmodel": PYFUNC}, "mlflow"),
        ({"MLmodel": TRITON, "double__config_pbtxt": ""}, "triton"),
        ({"double__config_pbtxt": ""}, "triton"),
        ({"double__1__model.onnx": ""}, "triton"),
        ({"double__7__model.py": "", "other__readme": ""}, "triton"),
        (LLAMA, "vllm"),
        ({"MLmodel": PYFUNC, "model__1__model.onnx": ""}, "mlflow"),
    ],
)
def test_the_files_tell(folder: Callable[..., Path], files: dict[str, str], runtime: str) -> None:
    pick = pick_runtime(folder(**files), "URI")
    assert pick.runtime == runtime
    assert pick.why


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"readme": ""}, "no folder in it has a `config.pbtxt`"),
        ({"MLmodel": "flavors:\n  spark:\n    data: x\n"}, "no flavour `python_function` (it has: spark)"),
        ({"MLmodel": "flavors: [\n"}, "none that can be read"),
        ({"MLmodel": "x: 1\n" * (4 << 20)}, "none that can be read"),
        ({"config_pbtxt": ""}, "name the folder above it"),
        ({"config_json": "{}"}, "names no `architectures`"),
        ({"config_json": LLAMA["config_json"]}, "no tokenizer"),
        ({"double__one__model.onnx": ""}, "mlflow: there is no file `MLmodel`"),
    ],
)
def test_what_nobody_can_serve_is_refused_with_each_ones_reason(
    folder: Callable[..., Path], files: dict[str, str], told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        pick_runtime(folder(**files), "URI")
    assert told in refused.value.message
    assert all(f"{name}: " in refused.value.message for name in ("mlflow", "triton", "vllm"))


def test_what_was_asked_for_binds(folder: Callable[..., Path]) -> None:
    path = folder(MLmodel=PYFUNC)
    assert pick_runtime(path, "URI", asked="custom").runtime == "custom"
    with pytest.raises(InvalidInput, match="`vllm` cannot serve it: there is no file") as refused:
        pick_runtime(path, "URI", asked="vllm")
    assert "fits: mlflow: its `MLmodel` has the flavour `python_function`; custom: " in refused.value.hint
    with pytest.raises(InvalidInput, match="`tritn` is not a runtime here") as unknown:
        pick_runtime(path, "URI", asked="tritn")
    assert unknown.value.hint.startswith("known: mlflow, triton, vllm, custom; fits: mlflow: ")


def test_an_update_stays_with_what_served_while_that_fits(folder: Callable[..., Path]) -> None:
    path = folder(MLmodel=PYFUNC)
    assert pick_runtime(path, "URI", before="custom").runtime == "custom"
    assert pick_runtime(path, "URI", before="triton").runtime == "mlflow"
    assert pick_runtime(path, "URI", before="gone-since").runtime == "mlflow"


@pytest.mark.parametrize(
    ("custom", "where", "told"),
    [
        (Custom(image="registry/iris:1"), "models[0].custom.image", "not images"),
        (Custom(command=("no-such-program-here",)), "models[0].custom.command", "no-such-program-here"),
    ],
)
def test_what_this_machine_lacks(custom: Custom, where: str, told: str) -> None:
    model = ModelSpec("iris", Source("folder"), runtime="custom", custom=custom)
    (problem,) = missing_problems(EndpointSpec((model,)))
    assert problem.where == where
    assert told in problem.message
    assert problem.hint


@pytest.mark.parametrize("runtime", ["triton", "vllm"])
def test_a_server_that_is_not_installed_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (problem,) = missing_problems(EndpointSpec((ModelSpec("iris", Source("folder"), runtime=runtime),)))
    assert problem.where == "models[0].runtime"
    assert "pip install" in problem.hint


def test_further_arguments_are_read_as_a_shell_would() -> None:
    def made(arguments: str) -> ModelSpec:
        return ModelSpec("llm", Source("folder"), runtime="vllm", env=(("SERVER_ARGS", arguments),))

    launch = Launch(made("--dtype 'float 32'"), Path("/m"), "127.0.0.1", 8000, Path("/s"))
    command = VLLM.command(launch)
    assert command[1:3] == ("serve", "/m")
    assert command[-2:] == ("--dtype", "float 32")
    (problem,) = missing_problems(EndpointSpec((made("--dtype 'float"),)))
    assert problem.where == "models[0].env.SERVER_ARGS"


def test_a_program_beside_the_server_is_found_when_it_starts() -> None:
    model = ModelSpec("iris", Source("folder"), runtime="custom", custom=Custom(command=("./serve",)))
    assert missing_problems(EndpointSpec((model,))) == []
