"""What both REST and gRPC say: requests, tensors, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Refused(Exception):
    """A request that is not asked of the model. `status` is HTTP's; gRPC's follows from it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def untranslatable(message: str) -> Refused:
    """What this protocol has no words for, and MLflow's own has."""
    return Refused(f"{message}; this model can be asked by /invocations", 501)


def check_parameters(parameters: Mapping[str, Any], where: str) -> None:
    """Raises Refused for those of extensions that there are, but not here."""
    for name in ("shared_memory_region", "classification"):
        if parameters.get(name):
            raise Refused(f"{where}: the extension by `{name}` is not supported", 501)


@dataclass(frozen=True)
class Tensor:
    """A named array. Of `BYTES` the elements are objects: `bytes`, or `str` where the model has text."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class Wanted:
    """An output that the caller asks for; over REST in binary, if so."""

    name: str
    binary: bool = False


@dataclass(frozen=True)
class Request:
    """A question. No `wanted`: all outputs, in binary if `binary`."""

    inputs: tuple[Tensor, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: tuple[Wanted, ...] = ()
    id: str = ""
    binary: bool = False
