"""Speeds by hand-worked numbers, and model files with everything that may be wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.autoscaler.simulator.models import MODELS, Model, load_model
from trimtab.core.errors import InvalidInput


@pytest.mark.parametrize("name", ["cpu", "io"])
def test_up_to_the_knee_requests_do_not_disturb_each_other(name: str) -> None:
    model = MODELS[name]
    assert model.speed(1) == model.speed(model.knee) == 1.0
    assert model.speed(4 * model.knee) == 0.25


def test_a_gpu_is_slower_the_fuller_its_batch_and_yet_does_more() -> None:
    gpu = Model("m", "gpu", service_time_s=1.0, service_time_cv=0.3, knee=8, batching=0.5)
    latencies = 1 / gpu.speeds(16)
    assert latencies[[1, 4, 8, 16]] == pytest.approx([0.5625, 0.75, 1.0, 2.0])
    throughput = np.arange(17) * gpu.speeds(16)
    assert (np.diff(throughput[:9]) > 0).all()
    assert throughput[8:] == pytest.approx(np.full(9, 8.0))


def test_the_built_in_classes() -> None:
    figures = {name: (model.knee, model.service_time_s) for name, model in MODELS.items()}
    assert figures == {"cpu": (4, 0.2), "gpu": (8, 1.0), "io": (100, 2.0)}


def test_alone_a_request_on_a_gpu_takes_less_than_at_the_knee() -> None:
    assert MODELS["gpu"].unloaded(2.0) == pytest.approx(1.125)
    assert MODELS["cpu"].unloaded(2.0) == 2.0


def test_a_file_starts_from_its_class(tmp_path: Path) -> None:
    file = tmp_path / "llama.toml"
    file.write_text('class = "gpu"\nservice_time_s = 4\nknee = 32\n')
    assert load_model(str(file)) == Model("llama", "gpu", 4, MODELS["gpu"].service_time_cv, 32, 0.5)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("knee = 3", "class", 'class = "cpu"'),
        ('class = "tpu"', "class", "known: cpu, gpu, io"),
        ("class = 3", "class", "known: cpu, gpu, io"),
        ('class = "cpu"\nkne = 3', "kne", "did you mean `knee`?"),
        ('class = "cpu"\nknee = 0', "knee", "from 1 to"),
        ('class = "cpu"\nknee = 2.5', "knee", "a whole number"),
        ('class = "cpu"\nknee = true', "knee", "a whole number"),
        ('class = "cpu"\nservice_time_s = 0', "service_time_s", "above 0"),
        ('class = "cpu"\nservice_time_s = nan', "service_time_s", "above 0"),
        ('class = "cpu"\nservice_time_cv = -1', "service_time_cv", "from 0"),
        ('class = "cpu"\nservice_time_cv = "1"', "service_time_cv", "from 0"),
    ],
)
def test_what_a_file_gets_wrong_is_named(tmp_path: Path, text: str, where: str, hint: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_model(str(file))
    assert caught.value.where == f"{file}: {where}"
    assert hint in caught.value.hint


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("knee = 0\nservice_time_s = -1\n")
    with pytest.raises(InvalidInput) as caught:
        load_model(str(file))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("text", ["cup", "", "there/is/none.toml", "CPU"])
def test_an_unknown_model_fails_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_model(text)
    assert caught.value.hint


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_model(str(file))
