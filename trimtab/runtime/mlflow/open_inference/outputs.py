"""From what a model returns to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trimtab.runtime.mlflow.open_inference.datatypes import BYTES, datatype_of
from trimtab.runtime.mlflow.open_inference.messages import Array, Tensor, untranslatable
from trimtab.runtime.mlflow.open_inference.signature import OUTPUT, Spec


def tensors_of(raw: Any, specs: Sequence[Spec]) -> list[Tensor]:
    """The outputs: arrays by name, a table's columns, or one array. Raises Refused if it is none of these."""
    if isinstance(raw, pd.DataFrame):
        named = {str(name): raw.iloc[:, place] for place, name in enumerate(raw.columns)}
        if len(named) != len(raw.columns):
            raise untranslatable("the model returned a table with two columns of one name")
        return [_tensor(name, column) for name, column in named.items()]
    if isinstance(raw, dict):
        return [_tensor(str(name), value) for name, value in raw.items()]
    return [_tensor(specs[0].name if len(specs) == 1 else OUTPUT, raw)]


def _tensor(name: str, value: Any) -> Tensor:
    array = _array(name, value)
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise untranslatable(f"the output {name!r} is of {array.dtype}, for which there is no datatype")
    return Tensor(name, datatype, array)


def _array(name: str, value: Any) -> Array:
    try:
        array = value.to_numpy() if isinstance(value, pd.Series) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise untranslatable(f"the output {name!r} is no array: {error}") from error
    if array.dtype.kind == "M":
        return np.datetime_as_string(array).astype(object)
    if array.dtype.kind not in "USO":
        return array
    elements = array.reshape(-1).tolist()
    if all(isinstance(element, (str, bytes)) for element in elements):
        return array.astype(object)
    plain = np.array(elements)
    if plain.shape == (array.size,) and plain.dtype.kind in "biuf":
        return plain.reshape(array.shape)
    kinds = sorted({type(element).__name__ for element in elements})
    raise untranslatable(f"the output {name!r} holds {', '.join(kinds)}: no {BYTES}, and no numbers")
