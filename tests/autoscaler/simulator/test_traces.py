"""CSV files as they occur: zipped or not, with other line ends, clocks, orders and mistakes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trimtab.autoscaler.simulator.rows import CHUNK_ROWS, instant_s, instant_text
from trimtab.autoscaler.simulator.traces import Counts, Requests, Trace, read_trace
from trimtab.core.errors import InvalidInput

JULY = 804556800.0  # 1995-07-01 00:00 UTC


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Write a file, and give its path."""

    def write(text: str | bytes) -> str:
        file = tmp_path / "trace.csv"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(file)

    return write


Write = Callable[[str | bytes], str]


def as_counts(trace: Trace) -> Counts:
    assert isinstance(trace, Counts)
    return trace


def as_requests(trace: Trace) -> Requests:
    assert isinstance(trace, Requests)
    return trace


def test_counts_per_minute_with_a_gap(written: Write) -> None:
    text = "minute,count\n1995-07-01 00:00:00,42\n1995-07-01 00:01:00,61\n1995-07-01 00:04:00,57\n"
    trace = as_counts(read_trace(written(text)))
    assert (trace.start_s, trace.period_s, trace.end_s) == (JULY, 60.0, JULY + 300)
    assert trace.counts.tolist() == [42, 61, 0, 0, 57]


def test_rows_in_any_order_and_twice_are_sorted_and_summed(written: Write) -> None:
    text = "t,count\n20,5\n0,1\n10,2\n20,4\n"
    assert as_counts(read_trace(written(text))).counts.tolist() == [1, 2, 9]


@pytest.mark.parametrize(
    "time",
    [
        "1995-07-01 00:00:10",
        "1995-07-01T00:00:10",
        "1995-07-01T00:00:10Z",
        "1995-07-01T00:00:10.0000000",
        "1995-07-01 02:00:10+02:00",
        "1995-06-30T20:00:10.000-0400",
    ],
)
def test_times_in_many_spellings(written: Write, time: str) -> None:
    trace = as_requests(read_trace(written(f"at\n1995-07-01T00:00:10Z\n{time}\n")))
    assert trace.times_s.tolist() == [JULY + 10, JULY + 10]


def test_a_windows_file_with_a_mark_seven_digits_and_blank_lines(written: Write) -> None:
    text = (
        "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n\r\n2023-11-16 18:17:03.9799600,4808,10\r\n"
        "\r\n2023-11-16 18:17:04.0319600,3180,8\r\n  ,,\r\n"
    )
    trace = as_requests(read_trace(written(text)))
    assert np.diff(trace.times_s) == pytest.approx([0.052])
    assert trace.costs == pytest.approx([10 + 48.08, 8 + 31.8])


def test_gzip_is_known_by_its_content(written: Write) -> None:
    zipped = gzip.compress(b"t,count\n0,1\n60,2\n")
    assert as_counts(read_trace(written(zipped))).counts.tolist() == [1, 2]


def test_requests_without_tokens_cost_the_same(written: Write) -> None:
    trace = as_requests(read_trace(written("t,model\n5,a\n1.5,b\n")))
    assert trace.times_s.tolist() == [1.5, 5]
    assert trace.costs.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("heads", "cost"),
    [
        ("prompt_tokens,completion_tokens", 20 + 1),
        ("Request tokens,Response tokens,Total tokens", 20 + 1),
        ("output_tokens,input_tokens", 100 + 0.2),
        ("n_tokens", 100),
        ("context_tokens", 1 + 1),
    ],
)
def test_which_tokens_cost_what(written: Write, heads: str, cost: float) -> None:
    cells = ",".join(["100", "20", "120"][: heads.count(",") + 1])
    assert as_requests(read_trace(written(f"t,{heads}\n0,{cells}\n"))).costs == pytest.approx([cost])


def test_many_rows_are_read_in_chunks(written: Write) -> None:
    number = CHUNK_ROWS + 3
    text = "t,tokens\n" + "".join(f"{index},{index % 7 + 1}\n" for index in range(number))
    trace = as_requests(read_trace(written(text)))
    assert trace.times_s.tolist() == list(range(number))
    assert trace.costs[-1] == (number - 1) % 7 + 1


def test_the_line_of_a_mistake_is_right_behind_a_chunk_and_a_blank_line(written: Write) -> None:
    text = "t\n\n" + "1\n" * CHUNK_ROWS + "oops\n"
    with pytest.raises(InvalidInput, match="`oops` is not a time") as caught:
        read_trace(written(text))
    assert f":{CHUNK_ROWS + 3}: column `t`" in caught.value.where


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "", "is empty"),
        ("t,count\n", "", "has no rows"),
        ("t,count\n\n\n", "", "has no rows"),
        ("t,count\n0,1\n", "", "one time only"),
        ("1995-07-01,4\n1995-07-02,4\n", ":1", "has no header"),
        ("t,count\n0,1\n60,\n", ":3: column `count`", "is not a number"),
        ("t,count\n0,1\n60,-1\n", ":3: column `count`", "`-1` is not a number"),
        ("t,count\n0,1\n60,inf\n", ":3: column `count`", "`inf` is not a number"),
        ("t,count\n0,1\n60\n", ":3: column `count`", "is missing"),
        ("t,count\n0,1\nsoon,1\n", ":3: column `t`", "`soon` is not a time"),
        ("t,count\n0,1\nnan,1\n", ":3: column `t`", "`nan` is not a time"),
        ("t,requests\n0,1\n60,1\n", ":1: column `requests`", "unknown column"),
        ("t,cuont\n0,1\n60,1\n", ":1: column `cuont`", "unknown column"),
        ("t,model,count\n0,a,1\n", ":1: column `count`", "in the wrong place"),
        ("count,t\n1,0\n1,60\n", ":1: column `count`", "in the wrong place"),
        ("t,tokens\n0,many\n", ":2: column `tokens`", "`many` is not a number"),
        ("t,count\n0,1\n1,1\n1e9,1\n", "", "periods of 1 s"),
        (b"t,count\n\xff\xfe,1\n", "", "cannot be read"),
        (gzip.compress(b"t,count\n0,1\n60,2\n")[:-9], "", "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    written: Write, text: str | bytes, where: str, message: str
) -> None:
    path = written(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_trace(path)
    assert caught.value.where == path + where
    assert caught.value.hint


@pytest.mark.parametrize("head", ["user", "country", "account", "amount", "content"])
def test_any_other_second_column_makes_rows_of_requests(written: Write, head: str) -> None:
    assert as_requests(read_trace(written(f"t,{head}\n0,x\n60,y\n"))).costs.tolist() == [1.0, 1.0]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        read_trace(str(tmp_path / "none.csv"))


def test_instants_as_words() -> None:
    assert instant_text(instant_s("1995-07-13T09:00")) == "1995-07-13T09:00:00"
    assert instant_text(2400.0) == "2400"
