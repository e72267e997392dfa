"""Requests in MLflow's scoring protocol, from what people have in hand. Pure."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
UNWRAPPED = frozenset({"messages", "prompt", "input"})  # MLflow hands such a body to the model as it is
DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Target:
    """Where requests go: a base address, and the key that the gateway asks for, if it does."""

    url: str
    api_key: str | None = None

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> Target:
        """With TRIMTAB_URL and TRIMTAB_API_KEY for what is not given. Raises InvalidInput."""
        base = (url or os.environ.get("TRIMTAB_URL") or DEFAULT_URL).rstrip("/")
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidInput(f"`{base}` is not an address", where="url", hint=f"for example {DEFAULT_URL}")
        return cls(base, api_key or os.environ.get("TRIMTAB_API_KEY") or None)

    def invocations(self, endpoint: str) -> str:
        """The address of an endpoint, `iris` or `iris.team-a`. Raises InvalidInput."""
        return f"{self.url}/serving-endpoints/{EndpointName.parse(endpoint).short}/invocations"

    def headers(self) -> dict[str, str]:
        """Of each request."""
        keyed = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"content-type": "application/json", "accept": "application/json", **keyed}


def body_of(inputs: Any, params: Mapping[str, Any] | None = None) -> bytes:
    """The body of a request.

    A pandas DataFrame becomes `dataframe_split`; a numpy array, a list, or a mapping of names to those
    becomes `inputs`; a list of mappings `dataframe_records`. A mapping with one of MLflow's four forms is
    taken as it is, and so is one of a language model (`messages`, `prompt` or `input`). A missing value in a
    DataFrame is null; bytes are base64, times ISO 8601. Raises InvalidInput.
    """
    asked = dict(_asked(inputs))
    if params is not None:
        asked["params"] = {**asked.get("params", {}), **params}
    try:
        return json.dumps(asked, default=_plain, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        hint = "give numbers, texts, truth values, None, and lists or mappings of them"
        raise InvalidInput(f"cannot be written as JSON: {error}", where="inputs", hint=hint) from error


def _asked(inputs: Any) -> Mapping[str, Any]:
    if _is(inputs, "pandas", "DataFrame"):
        rows = inputs.astype(object).where(inputs.notna(), None)
        return {"dataframe_split": {"columns": list(inputs.columns), "data": rows.to_numpy().tolist()}}
    if isinstance(inputs, Mapping):
        forms = [form for form in FORMS if form in inputs]
        if len(forms) > 1:
            hint = f"give one of {', '.join(FORMS)}"
            raise InvalidInput(f"has {' and '.join(forms)}", where="inputs", hint=hint)
        as_it_is = (forms and set(inputs) <= {forms[0], "params"}) or UNWRAPPED & set(inputs)
        return inputs if as_it_is else {"inputs": inputs}
    if _is(inputs, "pandas", "Series"):
        hint = "give a DataFrame (`series.to_frame().T` is one row), or `series.to_numpy()`"
        raise InvalidInput("is a Series: a row or a column?", where="inputs", hint=hint)
    records = isinstance(inputs, Sequence) and len(inputs) > 0 and isinstance(inputs[0], Mapping)
    return {"dataframe_records" if records else "inputs": inputs}


def _plain(value: Any) -> Any:
    """What `json` does not know itself: numpy's and pandas' values, bytes and times."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # arrays and scalars of numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _is(value: Any, module: str, name: str) -> bool:
    """Whether it is of a class in a library that is not imported here: who has such a value has it loaded."""
    loaded = sys.modules.get(module)
    kind = getattr(loaded, name, None)
    return kind is not None and isinstance(value, kind)
