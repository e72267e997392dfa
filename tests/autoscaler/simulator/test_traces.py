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

SPARSE = np.flatnonzero(np.concatenate([[1.0], np.random.default_rng(1).random(60_000)]) < 0.01)
SPARSE -= SPARSE[0]  # minutes with a request, one in a hundred of a month

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


def test_blank_lines_above_the_header(written: Write) -> None:
    assert as_counts(read_trace(written("\n , \nt,count\n0,1\n60,2\n"))).counts.tolist() == [1, 2]
    with pytest.raises(InvalidInput) as caught:
        read_trace(written("\n\nt,count\n0,1\n60,x\n"))
    assert ":5: column `count`" in caught.value.where


@pytest.mark.parametrize(
    ("rows", "period_s", "counts", "strays"),
    [
        ("0,6|60,6|61,1|120,6|180,6", 60.0, [6, 7, 6, 6], ()),  # one row a second late, and another
        ("0,6|60,7|60.001,5|120,3", 60.0, [6, 12, 3], ()),
        ("0,6|60,6|119,6|180,6", 60.0, [6, 6, 6, 6], ()),  # a scrape that came a second early
        ("0,6|59.98,6|119.99,6|180.02,6|240,6", 60.01, [6, 6, 6, 6, 6], ()),
        ("0,1|120,2|180,3|420,4", 60.0, [1, 0, 2, 3, 0, 0, 0, 4], ()),  # absent ones are the longer steps
        ("|".join(f"{60 * i},1" for i in range(20)) + "|630,5", 60.0, [1] * 10 + [6] + [1] * 9, (22,)),
        ("17,9|" + "|".join(f"{60 * i},1" for i in range(1, 20)), 60.0, [9] + [1] * 19, (2,)),
        ("|".join(f"{i * 60.07:.2f},1" for i in range(900)), 60.07, [1] * 900, ()),
        ("|".join(f"{60 * i},1" for i in SPARSE), 60.0, np.bincount(SPARSE).tolist(), ()),
        ("|".join(f"{i / 30:.3f},1" for i in range(900)), 1 / 30, [1] * 900, ()),
    ],
)
def test_the_period_is_the_commonest_step(
    written: Write, rows: str, period_s: float, counts: list[int], strays: tuple[int, ...]
) -> None:
    trace = as_counts(read_trace(written("t,count\n" + rows.replace("|", "\n") + "\n")))
    assert trace.period_s == pytest.approx(period_s, rel=1e-4)
    assert trace.counts.tolist() == counts
    assert trace.stray_lines == strays
    assert trace.start_s == 0.0


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
        ("t,count\n0,1\n1,1\n1e8,1\n", ":4: column `t`", "in line 3, .* 100000000 periods of 1 s"),
        ("t,count\n0,1\n60,1\n90,1\n150,1\n", ":4: column `t`", "within a period of 60 s"),
        # One wrong time among the others: where it is, and what it is far from.
        (
            "t\n1970-01-01T00:00:00Z\n2024-01-01T00:00:00Z\n",
            ":2: column `t`",
            "1970-01-01T00:00:00 is far from 2024-01-01T00:00:00 in line 3, and all times span 54 years",
        ),
        ("t,count\n1970-01-01,1\n2024-01-01,1\n2024-01-02,1\n", ":2: column `t`", "in line 3, .*54 years"),
        ("t,user\n\n1000,a\n5e9,c\n1001,b\n", ":4: column `t`", "far from 1970-01-01T00:16:41 in line 5"),
        # Times that are none as seconds.
        ("t\n0\n100000000000\n", ":3: column `t`", "`100000000000` as seconds is more than 230 years"),
        ("t\n-1e300\n1e300\n", ":2: column `t`", "`-1e300` as seconds"),
        ("t\n1700000000000\n", ":2: column `t`", "`1700000000000` as seconds"),
        ("t,count\n9999999999999999999,1\n99999999999999999999,2\n", ":2: column `t`", "as seconds"),
        ("t\n2024-01-01\n9999-12-31\n", ":3: column `t`", "`9999-12-31` is not a time"),
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


@pytest.mark.parametrize(
    ("stamp", "unit", "by"),
    [
        ("1700000000000", "milliseconds", "1,000"),
        ("1700000000000000.5", "microseconds", "1,000,000"),
        ("1700000000000000000", "nanoseconds", "1,000,000,000"),
    ],
)
def test_finer_units_than_seconds_are_known_by_their_size(
    written: Write, stamp: str, unit: str, by: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_trace(written(f"t,tokens\n{stamp},4\n"))
    assert caught.value.hint == f"these look like {unit}: divide them by {by}"


COUNT_LIKE = ["cnt", "rate", "rpm", "Request Count", "invocation_count", "requests_per_minute", "n_requests"]


@pytest.mark.parametrize(
    "head", [*COUNT_LIKE, "hits", "requests/s", "cout", "ccount", "arrivals", "req. per min"]
)
def test_what_looks_like_a_count_is_not_taken_for_single_requests(written: Write, head: str) -> None:
    with pytest.raises(InvalidInput, match="unknown column") as caught:
        read_trace(written(f"t,{head}\n0,600\n60,700\n"))
    assert "name it `count`" in caught.value.hint


OTHERS = ["user", "country", "account", "amount", "content", "county", "mount", "request_id", "corporate"]


@pytest.mark.parametrize("head", [*OTHERS, "discount", "token_count", "num_tokens"])
def test_any_other_second_column_makes_rows_of_requests(written: Write, head: str) -> None:
    assert as_requests(read_trace(written(f"t,{head}\n0,1\n60,1\n"))).costs.tolist() == [1.0, 1.0]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        read_trace(str(tmp_path / "none.csv"))


def test_instants_as_words() -> None:
    assert instant_text(instant_s("1995-07-13T09:00")) == "1995-07-13T09:00:00"
    assert instant_text(2400.0) == "2400"
    assert instant_text(1234567.25) == "1234567.25"
