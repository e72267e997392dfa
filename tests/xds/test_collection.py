"""A collection that was changed is the one that would be made anew, and knows what changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.xds.snapshot import CHANGES_KEPT, Collection, Resource, resource

contents = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=2).map(resource))


@given(st.lists(contents, min_size=1, max_size=CHANGES_KEPT))
def test_what_was_changed_is_what_is_made_anew(wanted: list[dict[str, Resource]]) -> None:
    found = [Collection({})]
    for new in wanted:
        found.append(found[-1].replaced({*found[-1].resources, *new}, new))
        anew = Collection(new)
        assert (found[-1], found[-1].version) == (anew, anew.version)
    for earlier in found:
        names = found[-1].changed_since(earlier.version)
        assert names is not None
        assert names >= {name for name in "abcdef" if _of(earlier, name) != _of(found[-1], name)}


@given(contents, contents)
def test_the_names_that_differ_are_those_that_changed(
    old: dict[str, Resource], new: dict[str, Resource]
) -> None:
    before = Collection(old)
    after = before.replaced("abcdef", new)
    assert after.changed_since(before.version) == {
        name for name in "abcdef" if old.get(name) != new.get(name)
    }
    assert (after is before) == (old == new)


def test_who_knows_only_a_version_of_long_ago_has_to_compare_all() -> None:
    first = last = Collection({"a": resource(b"")})
    for number in range(CHANGES_KEPT):
        last = last.replaced("a", {"a": resource(bytes([number]))})
    assert last.changed_since(first.version) == {"a"}
    last = last.replaced("a", {"a": resource(b"more")})
    assert last.changed_since(first.version) is None
    assert last.changed_since("another one") is None


def _of(collection: Collection, name: str) -> Resource | None:
    return collection.resources.get(name)
