"""A revision's hash names what needs pods of its own: no more, and no less."""

from __future__ import annotations

import string
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey, revision_hash
from trimtab.core.spec import ConcurrencyRange, Custom, ModelSpec, Placement, Resources, Source, Toleration

IRIS = ModelSpec(name="iris", source=Source(uri="models:/iris/1", digest="sha256:aa"))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "flower"},
        {"concurrency": ConcurrencyRange(2, 900)},
        {"source": replace(IRIS.source, uri="/models/iris", alias="prod", asked="http://a", version="9")},
        {"source": replace(IRIS.source, resolved_at_s=5.0, resolved_uri="models:/iris/1")},
    ],
)
def test_what_needs_no_new_pod_keeps_the_hash(changed: dict[str, object]) -> None:
    assert revision_hash(replace(IRIS, **changed)) == revision_hash(IRIS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"source": replace(IRIS.source, digest="sha256:bb")},
        {"runtime": "triton"},
        {"resources": Resources(cpu=2.0)},
        {"resources": Resources(memory_bytes=1 << 30)},
        {"env": (("A", "1"),)},
        {"start_timeout_s": 10.0},
        {"custom": Custom(command=("./serve",))},
        {"env_manager": "local"},
        {"tracking_uri": "http://mlflow.ml:5000"},
        {"secret": "mlflow"},
        {"resources": Resources(extended=(("nvidia.com/gpu", 1),))},
        {"placement": Placement(node_selector=(("zone", "a"),))},
        {"placement": Placement(tolerations=(Toleration("nvidia.com/gpu", "Exists"),))},
    ],
)
def test_what_runs_changes_the_hash(changed: dict[str, object]) -> None:
    assert revision_hash(replace(IRIS, **changed)) != revision_hash(IRIS)  # type: ignore[arg-type]


def test_a_hash_that_was_stored_stays_what_it_was() -> None:
    assert revision_hash(IRIS) == "dda0bab4498f168c"


def test_every_field_of_a_model_was_weighed() -> None:
    """A field added to ModelSpec must be put into one of the two lists above."""
    assert {field.name for field in fields(ModelSpec)} == {
        "name",
        "source",
        "runtime",
        "resources",
        "concurrency",
        "env",
        "custom",
        "env_manager",
        "start_timeout_s",
        "tracking_uri",
        "secret",
        "placement",
    }


@given(
    st.dictionaries(st.text(string.ascii_uppercase, min_size=1), st.text()), st.randoms(use_true_random=False)
)
def test_the_order_of_the_environment_does_not_matter(env: dict[str, str], rng: object) -> None:
    pairs = list(env.items())
    rng.shuffle(pairs)  # type: ignore[attr-defined]
    assert revision_hash(replace(IRIS, env=tuple(pairs))) == revision_hash(
        replace(IRIS, env=tuple(env.items()))
    )


def test_equal_numbers_hash_alike_however_they_were_written() -> None:
    written = replace(IRIS, resources=Resources(cpu=1), start_timeout_s=300)
    assert revision_hash(written) == revision_hash(IRIS)


def test_the_hash_is_16_hex_digits_and_stays() -> None:
    """Stored records refer to it: a change of the recipe would restart every pod."""
    assert revision_hash(IRIS) == "dda0bab4498f168c"


def test_a_server_of_ones_own_without_a_port_keeps_the_hash_from_before_there_were_any() -> None:
    own = ModelSpec("i", Source("u", digest="d"), "custom", custom=Custom(image="a:1", ready_path="/x"))
    assert revision_hash(own) == "7e030f328ef223b5"
    assert revision_hash(replace(own, custom=replace(own.custom, port=3000))) != "7e030f328ef223b5"


def test_a_key_is_written_with_its_endpoint() -> None:
    key = RevisionKey(EndpointName("team-a", "iris"), 3)
    assert str(key) == "iris.team-a/r3"
    assert key < RevisionKey(EndpointName("team-a", "iris"), 10)
