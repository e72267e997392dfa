"""The folder of a control plane, and the lock on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.control.home import Home
from trimtab.control.options import Started
from trimtab.core.errors import Conflict, Failed, InvalidInput
from trimtab.host.files import SOCKET_PATH_LENGTH_MAX

STARTED = Started(4711, "0.1.0", "127.0.0.1:8080", "127.0.0.1:9", "/home/run/control.sock")
HOLD = """
import sys, time, pathlib
from trimtab.control.home import Home
with Home.open(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_home_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "home"
    home = Home.open(path)
    assert home.path == path
    for folder in (home.path, home.run, home.models, home.control_socket.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    path.chmod(0o755)
    Home.open(path)
    assert path.stat().st_mode & 0o777 == 0o700, "mended if somebody opened it"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InvalidInput, match="not a folder") as caught:
        Home.open(tmp_path / "home")
    assert caught.value.where == str(tmp_path / "home")
    assert caught.value.hint


def test_a_second_control_plane_is_kept_out_and_told_who_holds_it(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    home.announce(STARTED)
    with home.locked(), pytest.raises(Conflict) as caught, Home.open(tmp_path).locked():
        pytest.fail("two hold it")
    assert "process 4711, listening on 127.0.0.1:8080" in str(caught.value)
    assert caught.value.where == str(tmp_path)
    assert "trimtab down" in caught.value.hint
    with home.locked():
        pass


def test_the_lock_goes_with_its_holder_even_if_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        home = Home.open(tmp_path)
        with pytest.raises(Conflict), home.locked():
            pytest.fail("two hold it")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=30)
    with home.locked():
        pass


def test_a_lock_that_cannot_be_opened_says_where_it_is(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    (home.run / "lock").mkdir()
    with pytest.raises(Failed, match="cannot be opened") as caught, home.locked():
        pytest.fail("there is no lock")
    assert caught.value.where == str(home.run / "lock")


def test_what_was_announced_is_found_again(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    assert home.last_announced() is None
    home.announce(STARTED)
    assert home.last_announced() == STARTED
    path = home.run / "control.json"
    assert path.stat().st_mode & 0o777 == 0o600
    newer = json.loads(path.read_text()) | {"colour": "red"}
    path.write_text(json.dumps(newer))
    assert home.last_announced() == STARTED, "a newer version may say more"


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "{}", '{"pid": 1}', "\xff"])
def test_an_announcement_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    home = Home.open(tmp_path)
    (home.run / "control.json").write_text(text, encoding="latin-1")
    assert home.last_announced() is None


def test_a_long_path_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    home = Home(tmp_path / ("x" * SOCKET_PATH_LENGTH_MAX))
    assert len(str(home.control_socket)) <= SOCKET_PATH_LENGTH_MAX
    assert Home(tmp_path / "x").control_socket == tmp_path / "x" / "run" / "control.sock"


def test_a_model_is_there_once_its_files_are(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    assert not home.has_model("sha256:00")
    folder = home.model_folder("sha256:00")
    assert folder == home.models / "sha256-00"
    folder.mkdir()
    assert not home.has_model("sha256:00")
    (folder / "config.json").write_text("")
    assert home.has_model("sha256:00")
