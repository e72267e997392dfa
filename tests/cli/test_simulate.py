"""`trimtab simulate` from the words given to the document printed, on small traces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner, Result

from trimtab.cli.main import cli
from trimtab.cli.simulate import above_zero, as_duration, as_range, as_seeds
from trimtab.core.errors import InvalidInput

TRIMTAB = f"{sys.executable} -m trimtab.cli"

RUN_KEYS = [
    "policy",
    "seed",
    "arrivals",
    "late_share",
    "rejected_share",
    "unfinished",
    "p50_s",
    "p99_s",
    "pod_hours",
    "least_pod_hours",
    "pods_peak",
    "scale_events",
    "capped_share",
    "overshoot_pods",
]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Four minutes of counts."""
    file = tmp_path / "trace.csv"
    file.write_text("minute,count\n" + "".join(f"2024-01-01 00:0{i}:00,{10 * i + 10}\n" for i in range(4)))
    return str(file)


@pytest.fixture
def simulate(trace: str) -> Callable[..., Result]:
    """`simulate("--policy", "kpa")`: the command on the small trace, in this process."""

    def invoke(*arguments: str) -> Result:
        few = ["--trace", trace, "--peak-pods", "3", "--warmup", "1m", "--jobs", "1", *arguments]
        return CliRunner().invoke(cli, ["simulate", *few])

    return invoke


Simulate = Callable[..., Result]


def test_the_document(simulate: Simulate, trace: str) -> None:
    result = simulate("--policy", "kpa,fixed:3", "--seeds", "1,2", "--cold-start", "2s", "--json")
    assert result.exit_code == 0, result.stderr
    whole = json.loads(result.stdout)
    assert whole["schema_version"] == 1
    given = whole["parameters"]
    assert (given["trace"], given["cold_start_s"], given["warmup_s"]) == (trace, 2.0, 60.0)
    assert (given["policies"], given["seeds"]) == (["kpa", "fixed:3"], [1, 2])
    assert given["model"]["name"] == "cpu"
    runs = whole["runs"]
    assert [(run["policy"], run["seed"]) for run in runs] == [
        ("kpa", 1),
        ("fixed:3", 1),
        ("kpa", 2),
        ("fixed:3", 2),
    ]
    assert all(list(run) == RUN_KEYS for run in runs)
    assert {run["arrivals"] for run in runs} == {9000}  # 3,600 in the busiest minute: 3 pods of 20 a second
    assert runs[0]["least_pod_hours"] == runs[1]["least_pod_hours"]
    assert runs[1]["pods_peak"] == 3


def test_the_same_words_give_the_same_numbers(simulate: Simulate) -> None:
    words = ("--policy", "kpa,hpa", "--json")
    assert simulate(*words).stdout == simulate(*words).stdout


def test_several_processes_give_the_same_numbers(simulate: Simulate) -> None:
    words = ("--policy", "kpa,fixed:3", "--json")
    assert simulate(*words).stdout == simulate(*words, "--jobs", "2").stdout


def test_the_table_on_stdout_and_the_rest_on_stderr(simulate: Simulate) -> None:
    result = simulate("--policy", "kpa,fixed:3")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("POLICY")
    assert [line.split()[0] for line in lines[1:]] == ["kpa", "fixed:3"]
    assert "2 of 2: fixed:3, seed 1" in result.stderr


def test_the_picture(simulate: Simulate, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    result = simulate("--policy", "kpa,fixed:3", "--seeds", "5,6", "--plot", str(file))
    assert result.exit_code == 0, result.stderr
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_part_of_a_trace_faster(simulate: Simulate) -> None:
    result = simulate(
        *(
            "--policy",
            "fixed:3",
            "--from",
            "2024-01-01T00:02:00Z",
            "--to",
            "2024-01-01 00:04",
            "--speed",
            "2",
            "--json",
        )
    )
    whole = json.loads(result.stdout)
    assert whole["runs"][0]["arrivals"] == 3600  # two minutes in one, the busiest
    assert (whole["parameters"]["from"], whole["parameters"]["speed"]) == ("2024-01-01T00:02:00Z", 2.0)


def test_a_model_from_a_file(simulate: Simulate, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('class = "gpu"\nknee = 2\n')
    result = simulate("--policy", "fixed:3", "--model", str(file), "--json")
    whole = json.loads(result.stdout)
    assert whole["parameters"]["model"]["knee"] == 2
    assert whole["runs"][0]["arrivals"] == 900  # of 360 in the busiest minute: 3 pods of 2 a second


def test_the_range_is_1_to_100_knees_unless_said_otherwise(simulate: Simulate) -> None:
    usual = json.loads(simulate("--policy", "fixed:3", "--json").stdout)
    assert usual["parameters"]["concurrency"] == {"min": 1, "max": 400}
    narrow = json.loads(simulate("--policy", "fixed:3", "--range", "0..8", "--json").stdout)
    assert narrow["parameters"]["concurrency"] == {"min": 0, "max": 8}
    assert narrow["runs"][0]["pods_peak"] == 2
    assert narrow["runs"][0]["capped_share"] == 1.0


def test_the_period_that_was_found_is_told(simulate: Simulate, tmp_path: Path) -> None:
    result = simulate("--policy", "fixed:3", "--json")
    assert "trace.csv: counts per 60 s, from 2024-01-01T00:00:00 to 2024-01-01T00:04:00" in result.stderr
    told = json.loads(result.stdout)["parameters"]
    assert (told["period_s"], told["burst_a"]) == (60.0, 20.0), "what is in effect"
    rows = tmp_path / "rows.csv"
    rows.write_text("t\n" + "".join(f"{i / 5}\n" for i in range(600)))
    result = simulate("--trace", str(rows), "--policy", "fixed:3", "--json")
    assert "rows.csv: 600 requests, one a row, from 0 to 119.8" in result.stderr
    told = json.loads(result.stdout)["parameters"]
    assert (told["period_s"], told["burst_a"]) == (None, None)


def test_rows_off_the_period_are_warned_of(simulate: Simulate, tmp_path: Path) -> None:
    file = tmp_path / "stray.csv"
    file.write_text("t,count\n" + "".join(f"{60 * i},600\n" for i in range(12)) + "90,5\n")
    result = simulate("--trace", str(file), "--policy", "fixed:3")
    assert "warning: rows within a period of 60 s count in it: 1, the first is stray.csv:14" in result.stderr


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (("--policy", "fixed:101"), "fixed:101 has 100 pods; the range is 1 to 100 pods of 4"),
        (("--policy", "fixed:1", "--range", "8..16"), "fixed:1 has 2 pods; the range is 2 to 4 pods of 4"),
        (
            ("--policy", "fixed:3", "--range", "1..8"),
            "the busiest minute needs 3 pods and nobody may have them",
        ),
    ],
)
def test_what_the_range_cuts_off_is_warned_of(
    simulate: Simulate, words: tuple[str, ...], warning: str
) -> None:
    result = simulate(*words)
    assert result.exit_code == 0
    assert f"warning: {warning}" in result.stderr
    assert "--range gives another" in result.stderr


def test_what_the_range_holds_is_not_warned_of(simulate: Simulate) -> None:
    assert "warning" not in simulate("--policy", "fixed:100,kpa").stderr


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_trace_may_be_a_pipe(trace: str, jobs: str) -> None:
    command = (
        f"{TRIMTAB} simulate --trace <(gzip -c {trace}) --peak-pods 3 --policy fixed:3,kpa --jobs {jobs}"
    )
    run = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("POLICY")


def test_a_full_disk_is_said_so(trace: str) -> None:
    command = f"{TRIMTAB} simulate --trace {trace} --peak-pods 3 --policy fixed:3 --jobs 1 > /dev/full"
    run = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "error: stdout: cannot be written" in run.stderr
    assert "hint: make room" in run.stderr
    assert "Exception" not in run.stderr
    assert "defect" not in run.stderr


def importing(processes: list[psutil.Process]) -> bool:
    """Whether one of them is in the midst of its imports, in which a Ctrl-C would show most of all."""
    return any(sum(process.cpu_times()[:2]) >= 0.2 for process in processes)


def heeds_interrupts() -> None:
    """A shell that runs the tests in the background has them, and what they start, ignore a Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_all_processes_with_one_word() -> None:
    """As a terminal sends it: to every process of the group at once."""
    words = ["simulate", "--trace", "diurnal", "--peak-pods", "200", "--policy", "kpa,hpa", "--jobs", "2"]
    run = subprocess.Popen(
        [*TRIMTAB.split(), *words, "--range", "1..4000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heeds_interrupts,  # noqa: PLW1509 -- sets one disposition, takes no lock
    )
    deadline_s = time.monotonic() + 30.0
    while not importing(psutil.Process(run.pid).children()):
        assert time.monotonic() < deadline_s, "no process has begun to simulate"
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert (run.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err


def test_burst_on_what_has_no_counts_is_warned_of(simulate: Simulate) -> None:
    result = simulate("--trace", "drop:0.95", "--policy", "fixed:3", "--burst", "5")
    assert result.exit_code == 0
    assert "--burst does nothing" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", "kpq"), "did you mean `kpa`?"),
        (("--model", "cup"), "known: cpu, gpu, io"),
        (("--trace", "stp:10"), "did you mean `step`?"),
        (("--trace", "step:-1"), "step:-1"),
        (("--trace", ""), "--trace: no shape and no file is called ``"),
        (("--cold-start", "soon"), "--cold-start: `soon` is not a duration"),
        (("--warmup", "48h"), "--warmup"),
        (("--peak-pods", "nan"), "--peak-pods: `nan`"),
        (("--speed", "0"), "--speed: `0`"),
        (("--seeds", "1,,2"), "--seeds"),
        (("--burst", "-1"), "--burst"),
        (("--range", "5..1"), "--range: `5..1` is reversed"),
        (("--range", "5"), "--range: `5` is not a range"),
        (("--range", "-1..5"), "write MIN..MAX"),
        (("--range", "0..0"), "a most from 1"),
        (("--range", "1..9999999"), "from 1 to 1000000"),
        (("--from", "noon"), "--from: `noon` is not a time"),
        (("--from", "60"), "--from: `60` is no date"),
        (("--jobs", "0"), "'--jobs'"),
        (("--polcy", "kpa"), "`cli simulate --help` tells what it takes"),
        (("--from", "2025-01-01"), "the trace goes from 2024-01-01T00:00:00"),
        (("--plot", "picture.bmp"), ".png"),
        (("--plot", "/dev/null/picture.png"), "there is no folder /dev/null"),
    ],
)
def test_a_mistake_fails_with_a_hint_and_prints_no_data(
    simulate: Simulate, words: tuple[str, ...], told: str
) -> None:
    result = simulate(*words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "hint: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["simulate"], "Missing option '--trace'"),
        (["simulat"], "Did you mean 'simulate'?"),
        (["--verison"], "Did you mean '--version'?"),
    ],
)
def test_clicks_own_errors_come_with_a_hint(words: list[str], told: str) -> None:
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert "hint: `cli" in result.stderr


def test_no_command_shows_them_all() -> None:
    assert "Commands:" in CliRunner().invoke(cli, []).output


def test_the_words_of_options() -> None:
    durations = [as_duration(None, None, word) for word in ("10s", "10m", "1h", "1.5m", "500ms", "7", "0")]
    assert durations == [10, 600, 3600, 90, 0.5, 7, 0]
    assert as_seeds(None, None, "3, 1,3") == (3, 1)
    assert above_zero(10)(None, None, "2.5") == 2.5
    assert (as_range(None, None, " 0..400 "), as_range(None, None, None)) == ((0, 400), None)
    with pytest.raises(InvalidInput):
        above_zero(10)(None, None, "10.5")


def test_other_commands_do_not_wait_for_numba() -> None:
    code = "import sys, trimtab.cli.main; print([m for m in ('numba', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_the_command_is_a_command() -> None:
    assert isinstance(cli.commands["simulate"], click.Command)
    assert "--cold-start" in CliRunner().invoke(cli, ["simulate", "--help"]).stdout
