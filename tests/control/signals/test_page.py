"""Of a page the wanted samples are read, in whatever order and company they come."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.scrape import PAGE_BYTES_MAX
from trimtab.control.signals.page import SAMPLES_MAX, Page, read_page

NAMES = frozenset({"a_total", "b"})


def values(page: Page | None, name: str) -> list[float | None] | None:
    assert page is not None
    found = page.of(name)
    return None if found is None else [sample.value for sample in found]


def test_what_is_wanted_is_read_and_nothing_else_can_harm() -> None:
    text = '# TYPE b gauge\r\nb{x="1"} 2\r\n  b{x="2"} 3 1700000000000\nnonsense {{{\na_total 4\nab 9\n'
    page = read_page(text, NAMES)
    assert values(page, "b") == [2.0, 3.0]
    assert values(page, "a_total") == [4.0]
    assert page is not None
    assert set(page.samples) == NAMES


def test_what_is_declared_is_there_and_empty_and_what_is_not_is_unknown() -> None:
    page = read_page("# TYPE a counter\n# HELP b of b\n", NAMES)
    assert values(page, "a_total") == []
    assert values(page, "b") is None


@pytest.mark.parametrize("text", ["b{x=", "b", "b abc", 'b{x="1} 3', "b 1_0"])
def test_a_page_with_a_broken_line_of_what_is_wanted_is_not_believed(text: str) -> None:
    assert read_page(f"a_total 1\n{text}\n", NAMES) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1"])
def test_values_that_cannot_be_are_unknown(value: str) -> None:
    assert values(read_page(f"b {value}\n", NAMES), "b") == [None]


def test_too_many_samples_are_refused_before_they_are_parsed() -> None:
    assert read_page("".join(f'b{{x="{n}"}} 1\n' for n in range(SAMPLES_MAX + 1)), NAMES) is None


def test_a_page_of_the_largest_size_is_read_in_a_moment() -> None:
    """It took 16 ms where this was written; to parse every line of it would take half a second."""
    line = 'other_seconds_bucket{le="0.5",route="/invocations"} 12345\n'
    text = line * (PAGE_BYTES_MAX // len(line)) + "b 7\n"
    began_s = time.process_time()
    assert values(read_page(text, NAMES), "b") == [7.0]
    assert time.process_time() - began_s < 0.5


@given(st.data())
def test_order_and_repetition_of_lines_do_not_matter(page: Callable[[str], str], data: st.DataObject) -> None:
    lines = page("vllm").splitlines()
    names = frozenset(line.partition("{")[0] for line in lines if not line.startswith("#"))
    mixed = lines + data.draw(st.lists(st.sampled_from(lines), max_size=20))
    random.Random(data.draw(st.integers())).shuffle(mixed)
    found, plain = read_page("\n".join(mixed), names), read_page("\n".join(lines), names)
    assert found is not None
    assert plain is not None
    assert found.declared == plain.declared
    for name in names:
        by_labels = {tuple(sorted(s.labels.items())): s.value for s in found.samples[name]}
        assert by_labels == {tuple(sorted(s.labels.items())): s.value for s in plain.samples[name]}
        assert len(by_labels) == len(found.samples[name])


@given(st.text(max_size=300))
def test_no_text_breaks_the_reading(text: str) -> None:
    page = read_page(text, frozenset({"b", "0", "a_total"}))
    assert page is None or isinstance(page, Page)
