"""What the vertical axis learns of a model before a run: a rehearsal in the same engine.

A few pods, and a queue in which requests of the model always wait. It begins with a limit of 1, as pods
whose cores are unknown, and the axis decides as it would in service. A run then begins where the
rehearsal ended, and the trace does not pay for what every revision learns once.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np

from trimtab.autoscaler.simulator.engine import Engine, PodSums
from trimtab.autoscaler.simulator.load import demands
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.policies.base import LIMIT_KNEES, PODS_SEEN_EACH_S, PodTick
from trimtab.autoscaler.simulator.policies.limit import LIMIT_EACH_S, LimitAxis
from trimtab.autoscaler.vertical import Learned, learned

FIRST_LIMIT = 1
NOTHING: PodSums = (0.0, 0.0, 0.0, 0.0)

DECISIONS = 30
"""Ten are to find the knee; twenty more show that it stays, and make its throughput well known."""

PODS = 4
"""Where requests always wait there is more than one pod. What they tell is summed up: of requests that differ
as widely as their mean, a single one of 50/s shows its throughput of 30 s to 3 %, four show it to 1.3 %."""

REQUESTS_MAX = 4_000_000
"""Their arrays take 110 MB. Where one pod would answer more than a quarter of them there are fewer pods,
and a single one that answers more than 3,700/s ends its rehearsal sooner: both show little noise."""

SPARE = 1.2  # requests beyond what is answered at the knee: some are left whatever the demands drawn


class Rehearsed(NamedTuple):
    """What a rehearsal gave."""

    learned: Learned
    limits: tuple[int, ...]  # after each decision


@lru_cache(maxsize=64)
def rehearse(model: Model, seed: int) -> Rehearsed:
    """What the axis learns of the model. Deterministic for the seed; kept within the process."""
    lasts_s = DECISIONS * LIMIT_EACH_S
    ceiling = LIMIT_KNEES * model.knee
    each = ceil(SPARE * lasts_s * model.knee / model.service_time_s) + ceiling
    pods = min(PODS, max(1, REQUESTS_MAX // each))
    requests = min(REQUESTS_MAX, pods * each)
    demands_s = demands(model, requests, np.random.default_rng([seed, 4]))
    engine = Engine(np.zeros(requests), demands_s, model.speeds(ceiling), requests)
    axis = LimitAxis(model.kind, model.knee, ceiling, FIRST_LIMIT, None)
    before = {engine.add(): NOTHING for _ in range(pods)}
    limits = []
    for period in range(1, round(lasts_s / PODS_SEEN_EACH_S) + 1):
        at_s = period * PODS_SEEN_EACH_S
        engine.advance(at_s, axis.limit)
        sums = engine.pod_sums()
        axis.see(at_s, [PodTick.between(pod, before[pod], sums[pod], model.knee) for pod in sums], None)
        before = sums
        if at_s % LIMIT_EACH_S == 0:
            limits.append(axis.decide(at_s, ready=pods))
    return Rehearsed(learned(axis.state), tuple(limits))
