"""A rehearsal teaches the limit before a run: close to the knee, quiet afterwards, the same for a seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from trimtab.autoscaler.simulator.models import MODELS, Model, load_model
from trimtab.autoscaler.simulator.onboarding import DECISIONS, FIRST_LIMIT, rehearse
from trimtab.autoscaler.simulator.policies.base import LIMIT_KNEES

FOUND_WITHIN = 15  # decisions: ten are allowed for, and a few confirm


def throughput(model: Model, limit: int) -> float:
    """Of one pod that always holds `limit`, relative to the best."""
    rates = [held * model.speed(held) for held in range(1, LIMIT_KNEES * model.knee + 1)]
    return rates[limit - 1] / max(rates)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_the_limit_of_a_class_is_close_to_its_knee_and_stays(name: str, seed: int) -> None:
    model = MODELS[name]
    rehearsed = rehearse(model, seed)
    limit = rehearsed.learned.limit
    assert throughput(model, limit) > 0.92
    assert limit <= 1.35 * model.knee
    assert len(rehearsed.limits) == DECISIONS
    assert set(rehearsed.limits[FOUND_WITHIN:]) == {limit}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("knee", [1, 12, 60])
def test_a_model_of_a_file_is_learned_too(tmp_path: Path, kind: str, knee: int) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'class = "{kind}"\nknee = {knee}\nservice_time_s = 0.4\nservice_time_cv = 0.3\n')
    model = load_model(str(file))
    limit = rehearse(model, 1).learned.limit
    assert throughput(model, limit) > 0.92
    assert limit <= 1.35 * knee + 1


@pytest.mark.parametrize(
    ("kind", "knee", "service_time_s"), [("gpu", 300, 2.0), ("gpu", 64, 1.0), ("io", 59, 3.1)]
)
def test_requests_of_equal_cost_complete_in_step_and_are_learned_too(
    kind: str, knee: int, service_time_s: float
) -> None:
    """All that began together ends together: a window sees a batch more or less, which is not throughput."""
    model = replace(MODELS[kind], knee=knee, service_time_s=service_time_s, service_time_cv=0.0)
    rehearsed = rehearse(model, 1)
    assert throughput(model, rehearsed.learned.limit) > 0.95
    assert rehearsed.learned.limit <= 1.05 * knee
    assert len(set(rehearsed.limits[FOUND_WITHIN:])) == 1


def test_it_begins_as_a_pod_of_which_nothing_is_known() -> None:
    limits = rehearse(MODELS["io"], 1).limits
    assert limits[0] <= 2 * FIRST_LIMIT
    assert all(after <= 2 * before for before, after in pairwise(limits))


def test_the_same_seed_teaches_the_same_and_another_model_something_else() -> None:
    model = replace(MODELS["cpu"], service_time_s=0.21)
    assert rehearse(model, 1) == rehearse.__wrapped__(model, 1)
    assert rehearse(replace(model, knee=9), 1).learned != rehearse(model, 1).learned


def test_what_was_learned_can_be_stored() -> None:
    learned = rehearse(MODELS["gpu"], 1).learned
    assert type(learned).from_json(learned.to_json()).limit == learned.limit
