"""An endpoint is (namespace, name) everywhere; written `{name}.{namespace}`."""

from __future__ import annotations

import re
from typing import NamedTuple

from trimtab.core.errors import InvalidInput, Problem

DEFAULT_NAMESPACE = "default"
NAME_LENGTH_MAX = 63  # a DNS label: the name is part of a host name and of Kubernetes' object names
RESERVED_NAMES = frozenset({"chat", "completions", "embeddings"})  # path segments of OpenAI's clients

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class EndpointName(NamedTuple):
    """Names one endpoint. Both parts are DNS labels; see `name_problems`. A tuple: quick to look up by."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"

    @property
    def short(self) -> str:
        """The name as people write it: bare in the default namespace."""
        return self.name if self.namespace == DEFAULT_NAMESPACE else str(self)

    @classmethod
    def parse(cls, text: str, namespace: str = "") -> EndpointName:
        """`iris`, `iris.team-a`; a bare name is in `namespace`, by default in `default`.

        Raises InvalidInput if a part is malformed or reserved, or if both forms disagree.
        """
        name, dot, written = text.partition(".")
        if dot and namespace and written != namespace:
            raise InvalidInput(
                f"`{text}` names the namespace `{written}`, but `{namespace}` was asked for",
                where="name",
                hint="give the namespace once: NAME.NAMESPACE, or NAME with -n NAMESPACE",
            )
        found = cls(namespace=written if dot else (namespace or DEFAULT_NAMESPACE), name=name)
        problems = name_problems(found)
        if problems:
            raise InvalidInput.of(problems)
        return found


def name_problems(endpoint: EndpointName) -> tuple[Problem, ...]:
    """What is wrong with the two parts of a name; empty if nothing is."""
    problems = [*_label_problems("name", endpoint.name)]
    problems += _label_problems("namespace", endpoint.namespace)
    if endpoint.name in RESERVED_NAMES:
        problems.append(
            Problem(
                "name",
                f"`{endpoint.name}` is reserved (it is a path of OpenAI's clients)",
                f"choose another name, for example `{endpoint.name}-model`",
            )
        )
    return tuple(problems)


def _label_problems(where: str, label: str) -> list[Problem]:
    if not label:
        return [Problem(where, "is empty", f"give the endpoint a {where}")]
    if len(label) > NAME_LENGTH_MAX:
        return [Problem(where, f"has {len(label)} characters", f"at most {NAME_LENGTH_MAX} fit")]
    if not _LABEL.fullmatch(label):
        hint = "use a-z, 0-9 and -, beginning and ending with a letter or digit"
        return [Problem(where, f"`{label}` is not a valid name", hint)]
    return []
