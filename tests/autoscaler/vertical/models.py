"""Models whose throughput is known at any concurrency, and the costs of their requests."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import numpy as np

Rate = Callable[[float], float]
Costs = Callable[[np.random.Generator, int], np.ndarray]


def cpu(knee: float, service_s: float) -> Rate:
    """One request per core: as fast as alone up to the knee, shared beyond."""
    return lambda n: min(n, knee) / service_s


def batching(knee: float, service_s: float, alone: float) -> Rate:
    """A GPU: a batch of n takes `alone` + (1 - alone) n / knee of `service_s`; beyond the knee they queue."""
    return lambda n: min(n / (alone + (1 - alone) * n / knee), knee) / service_s


def hyperbolic(rate: float, half: float) -> Rate:
    """Saturates smoothly: half of `rate` with `half` in flight."""
    return lambda n: rate * n / (n + half)


def rounded(knee: float, service_s: float, power: float = 4.0) -> Rate:
    """A knee without an edge."""
    return lambda n: n / service_s / (1 + (n / knee) ** power) ** (1 / power)


def thrashing(knee: float, service_s: float, power: float) -> Rate:
    """Throughput falls beyond the knee."""
    return lambda n: min(n, knee) / service_s * min(1.0, knee / n) ** power


def usl(service_s: float, shared: float, crosstalk: float) -> Rate:
    """The universal scalability law (Gunther)."""
    return lambda n: n / service_s / (1 + shared * (n - 1) + crosstalk * n * (n - 1))


def slower(rate: Rate, factor: float) -> Rate:
    """The same with each request `factor` times as long."""
    return lambda n: rate(n) / factor


def lognormal(cv: float) -> Costs:
    """Costs of mean 1."""
    sigma = sqrt(log(1 + cv * cv))
    return lambda rng, size: rng.lognormal(-sigma * sigma / 2, sigma, size)


def hundredfold(rng: np.random.Generator, size: int) -> np.ndarray:
    """Costs of mean 1 that vary by 100: uniform in their logarithm."""
    return 10 ** rng.uniform(-1, 1, size) / (9.9 / log(100))
