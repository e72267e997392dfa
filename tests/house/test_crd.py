"""The definition of ServingEndpoint is what proto/ and the rules give, and says what the control API says."""

from typing import Any

import pytest

from deploy.crd import generate, rules
from trimtab.v1 import control_pb2 as v1


def test_the_definition_is_fresh() -> None:
    assert generate.FILE.read_text() == generate.text(), "run `make crd`"


def test_a_changed_rule_makes_it_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.SPEC, "Model.uri", {"maxLength": 7})
    assert generate.FILE.read_text() != generate.text()


def test_each_rule_is_of_a_message_or_field_that_there_is() -> None:
    """A field that was renamed would lose its bounds unseen."""
    messages = v1.DESCRIPTOR.message_types_by_name
    for name in (*rules.SPEC, *rules.STATUS):
        message, dot, field = name.removesuffix("[]").partition(".")
        assert message in messages
        assert not dot or field in messages[message].fields_by_name


def test_every_field_that_a_user_may_set_is_in_it() -> None:
    version = generate.definition()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    models = spec["properties"]["models"]["items"]
    assert _names(spec) == {field.json_name for field in v1.Spec.DESCRIPTOR.fields}
    assert _names(models) == {field.json_name for field in v1.Model.DESCRIPTOR.fields} - {"source"}


def _names(schema: dict[str, Any]) -> set[str]:
    return set(schema["properties"])
