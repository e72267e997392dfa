"""How long a deploy waits when nobody says."""

from __future__ import annotations

import pytest

from trimtab.cli.rollout import MARGIN_S, patience_s
from trimtab.environment.making import MAKE_TIMEOUT_S
from trimtab.v1 import control_pb2 as pb


@pytest.mark.parametrize(
    ("model", "start_s", "made"),
    [
        (pb.Model(runtime="mlflow"), 300.0, True),
        (pb.Model(), 300.0, True),
        (pb.Model(runtime="mlflow", env_manager="uv", start_timeout_s=20.0), 20.0, True),
        (pb.Model(runtime="mlflow", env_manager="local"), 300.0, False),
        (pb.Model(runtime="triton"), 300.0, False),
        (pb.Model(runtime="custom", start_timeout_s=900.0), 900.0, False),
    ],
)
def test_an_environment_is_waited_for_only_where_one_is_made(
    model: pb.Model, start_s: float, made: bool
) -> None:
    assert patience_s(pb.Spec(models=[model])) == start_s + (MAKE_TIMEOUT_S if made else 0.0) + MARGIN_S


def test_the_slowest_model_counts() -> None:
    slow = pb.Model(runtime="vllm", start_timeout_s=3_600.0)
    assert patience_s(pb.Spec(models=[pb.Model(), slow])) == 3_600.0 + MARGIN_S
