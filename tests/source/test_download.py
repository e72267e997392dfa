from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.errors import Conflict, Exhausted, InvalidInput, NotFound
from trimtab.core.spec import Source
from trimtab.source import cache, download, fetch, resolve


def local(folder: Path) -> Source:
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "code" / "a.py").write_text("x = 1\n")
    return resolve(str(folder))


def test_the_model_is_copied_whole_and_read_only(registry: Any, models: Path) -> None:
    found = download(resolve("models:/iris@champion"), models)
    folder = cache.folder_of(models, found.digest)
    assert (folder / "MLmodel").is_file()
    assert (folder / "python_model.pkl").is_file()
    assert {path.stat().st_mode & 0o222 for path in (folder, *folder.rglob("*"))} == {0}
    assert [path.name for path in models.iterdir() if path.is_dir()] == [folder.name]


def test_an_alias_and_its_version_are_one_model_in_the_cache(registry: Any, models: Path) -> None:
    digests = {download(resolve(uri), models).digest for uri in ("models:/iris@champion", "models:/iris/1")}
    assert len(digests) == 1
    assert download(resolve("models:/iris/2"), models).digest not in digests


@pytest.mark.parametrize("form", ["models:/{0.models[0]}", "runs:/{0.runs[0]}/model", "{0.saved}"])
def test_every_form_ends_in_the_cache(registry: Any, models: Path, form: str) -> None:
    found = download(resolve(form.format(registry)), models)
    assert (cache.folder_of(models, found.digest) / "MLmodel").is_file()


def test_what_serves_does_not_need_the_source_any_more(tmp_path: Path, models: Path) -> None:
    found = download(local(tmp_path / "m"), models)
    shutil.rmtree(tmp_path / "m")
    assert (cache.folder_of(models, found.digest) / "code" / "a.py").read_text() == "x = 1\n"


def test_a_model_that_is_there_is_not_copied_again(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = local(tmp_path / "m")
    first = download(source, models)
    monkeypatch.setattr(fetch, "_copy", lambda *_: pytest.fail("copied again"))
    assert download(source, models) == first


def test_a_model_in_the_cache_that_lost_bytes_is_replaced(tmp_path: Path, models: Path) -> None:
    source = local(tmp_path / "m")
    folder = cache.folder_of(models, download(source, models).digest)
    (folder / "code").chmod(0o700)
    (folder / "code" / "a.py").unlink()
    download(source, models)
    assert (folder / "code" / "a.py").read_text() == "x = 1\n"


def test_the_digest_is_of_names_and_contents_only(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    local(one)
    shutil.copytree(one, other)
    (other / "empty").mkdir()
    os.utime(other / "MLmodel", (1, 1))
    (other / "MLmodel").chmod(0o400)
    assert cache.digest_of(one) == cache.digest_of(other)
    lines = "".join(
        f"{hashlib.sha256((one / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("MLmodel", "code/a.py")
    )
    assert cache.digest_of(one) == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    (other / "code" / "a.py").rename(other / "code" / "b.py")
    assert cache.digest_of(one) != cache.digest_of(other)


def test_copies_at_the_same_time_agree(tmp_path: Path, models: Path) -> None:
    source = local(tmp_path / "m")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(download(source, models).digest)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert not list(models.glob(f"{cache.INCOMING}*"))


KILLED = """
import sys
from pathlib import Path
from trimtab.source import cache
models = Path(sys.argv[1])
with cache.in_use(models), cache.incoming(models) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    print("half", flush=True)
    sys.stdin.read()
"""


def test_a_copy_that_was_killed_leaves_only_what_prune_removes(models: Path) -> None:
    argv = [sys.executable, "-c", KILLED, str(models)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as copying:
        assert copying.stdout is not None
        assert copying.stdout.readline() == "half\n"
        with pytest.raises(Conflict):
            cache.prune(models, frozenset())
        copying.send_signal(signal.SIGKILL)
    (left,) = (path.name for path in models.iterdir() if path.is_dir())
    assert left.startswith(cache.INCOMING)
    assert cache.prune(models, frozenset(), dry_run=True) == cache.Pruned((left,), 1000)
    assert cache.prune(models, frozenset()) == cache.Pruned((left,), 1000)
    assert [path.name for path in models.iterdir()] == [".lock"]


def test_prune_keeps_what_is_referred_to(tmp_path: Path, models: Path) -> None:
    kept = download(local(tmp_path / "m"), models)
    (tmp_path / "m" / "more").write_text("x")
    gone = download(resolve(str(tmp_path / "m")), models)
    pruned = cache.prune(models, frozenset({kept.digest}))
    assert pruned.removed == (cache.folder_of(models, gone.digest).name,)
    assert cache.folder_of(models, kept.digest).is_dir()
    assert not cache.folder_of(models, gone.digest).exists()


def test_prune_of_a_cache_that_is_not_there(models: Path) -> None:
    assert cache.prune(models, frozenset()) == cache.Pruned((), 0)


def test_a_full_disk_is_named_and_nothing_is_left(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", f"[Errno {errno.ENOSPC}] No space left on device")])

    source = local(tmp_path / "m")
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(Exhausted) as caught:
        download(source, models)
    assert "trimtab prune" in caught.value.hint
    assert not [path for path in models.iterdir() if path.is_dir()]


def test_a_run_without_that_model_names_the_server(registry: Any, models: Path) -> None:
    with pytest.raises(NotFound) as caught:
        download(resolve(f"runs:/{registry.runs[0]}/nosuch"), models)
    assert caught.value.where == registry.uri
    assert not [path for path in models.iterdir() if path.is_dir()]


def test_files_that_are_no_model_are_not_kept(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(folder: Path) -> None:
        seen.append(folder)
        raise InvalidInput("will not do")

    seen: list[Path] = []
    source = local(tmp_path / "m")
    for one in (source, replace(source, asked="https://server")):  # a server's are only known once copied
        monkeypatch.setattr("trimtab.source.fetch._copy", lambda _, folder: made(folder / "model"))
        with pytest.raises(InvalidInput, match="will not do"):
            download(one, models, check=check)
    assert seen[0] == tmp_path / "m"
    assert seen[1].is_relative_to(models)
    assert not models.exists() or not [path for path in models.iterdir() if path.is_dir()]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_progress_tells_of_bytes(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    copy = fetch._copy
    enough = threading.Event()

    def slowly(source: Source, folder: Path) -> Path:
        copied = copy(source, folder)
        assert enough.wait(20)
        return copied

    def progress(copied: int) -> None:
        told.append(copied)
        enough.set()

    monkeypatch.setattr(fetch, "PROGRESS_PERIOD_S", 0.01)
    monkeypatch.setattr(fetch, "_copy", slowly)
    download(local(tmp_path / "m"), models, progress)
    assert told[0] > 0


def test_remove_tree_of_what_is_read_only_or_gone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "c").write_text("x")
    folder.chmod(0o555)
    (tmp_path / "a").chmod(0o555)
    cache.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    cache.remove_tree(tmp_path / "a")
