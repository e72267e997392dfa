"""Pods and the cache of their node over real HTTP: who gets what, who waits, and what is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.modelcache.running import Running, running
from trimtab.core.errors import Unreachable
from trimtab.modelcache.client import Absent, Damaged, Found, NodeCache, contents_of, unpack

KEY, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, bytes_max=1 << 20) as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}")
    (folder / "data" / "weights ünd more").write_bytes(bytes(range(256)) * 100)
    (folder / "empty").touch()
    return folder


def put(pod: NodeCache, model: Path, key: str = KEY) -> None:
    pod.put(key, contents_of(model, "sha256:ab", "stamp"), model)


def there(pod: NodeCache, key: str = KEY) -> bool:
    with pod.get(key, claim=False) as found:
        return isinstance(found, Found)


def test_what_one_pod_brought_the_next_one_has(cache: Running, model: Path, tmp_path: Path) -> None:
    put(cache.as_pod_of(), model)
    with cache.as_pod_of().get(KEY) as found:
        assert isinstance(found, Found)
        assert (found.contents.digest, found.contents.stamp) == ("sha256:ab", "stamp")
        unpack(found, tmp_path / "copy")
    for path in model.rglob("*"):
        copied = tmp_path / "copy" / path.relative_to(model)
        assert path.is_dir() or copied.read_bytes() == path.read_bytes()


def test_another_tenant_has_neither_it_nor_a_way_to_change_it(cache: Running, model: Path) -> None:
    put(cache.as_pod_of("team"), model)
    rival = cache.as_pod_of("rivals")
    assert not there(rival)
    with cache.as_pod_of("team").get(KEY) as found:
        assert isinstance(found, Found)
        tag = found.tag
    rival.drop(KEY, tag)
    (model / "MLmodel").write_text("poison")
    put(rival, model)
    with cache.as_pod_of("team").get(KEY) as found:
        assert isinstance(found, Found)
        assert found.tag == tag
        assert b"poison" not in found.body.read()


@pytest.mark.parametrize(
    ("token", "status"), [("", 401), ("not-one-of-ours", 401), ("the API server is away", 503)]
)
def test_who_cannot_be_told_gets_nothing(cache: Running, model: Path, token: str, status: int) -> None:
    put(cache.as_pod_of(), model)
    (cache.tokens / "own").write_text(token)
    pod = NodeCache(f"http://127.0.0.1:{cache.port}", cache.tokens / "own")
    with pytest.raises(Unreachable, match=f"answered {status}"), pod.get(KEY):
        pass


def test_one_brings_it_while_others_wait(cache: Running, model: Path) -> None:
    first, second = cache.as_pod_of(), cache.as_pod_of()
    with first.get(KEY) as found:
        assert isinstance(found, Absent)
        claim = found.claim
    assert claim
    with second.get(KEY, wait_s=0.0) as found:
        assert found is None, "another one brings it"
    got: list[bool] = []

    def wait() -> None:
        with second.get(KEY, wait_s=20.0) as found:
            got.append(isinstance(found, Found))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with first.claimed(KEY, claim):
        put(first, model)
    waiting.join(30)
    assert got == [True]


def test_who_could_not_bring_it_leaves_it_to_the_next_one(cache: Running) -> None:
    first, second = cache.as_pod_of(), cache.as_pod_of()
    with first.get(KEY) as found:
        assert isinstance(found, Absent)
        claim = found.claim
    with pytest.raises(RuntimeError), first.claimed(KEY, claim):
        raise RuntimeError
    with second.get(KEY) as found:
        assert isinstance(found, Absent)
        assert found.claim


def test_a_pod_that_dies_in_the_middle_leaves_nothing(cache: Running) -> None:
    token = "team"
    with socket.create_connection(("127.0.0.1", cache.port)) as connection:
        head = [f"PUT /v1/models/{KEY} HTTP/1.1", "Host: c", "Content-Length: 100"]
        head += [f"Authorization: Bearer {token}", "", "half"]
        connection.sendall("\r\n".join(head).encode())
        wait_for(lambda: bool(cache.files()))
    wait_for(lambda: not cache.files())
    assert not there(cache.as_pod_of())


def test_it_keeps_to_its_bound(cache: Running, model: Path) -> None:
    pod = cache.as_pod_of()
    (model / "big").write_bytes(b"x" * (400 << 10))
    for number in range(8):
        put(pod, model, f"{number:02x}" * 32)
        assert sum(path.stat().st_size for path in cache.files()) <= 1 << 20
    assert there(pod, "07" * 32)
    assert not there(pod, "00" * 32)
    (model / "big").write_bytes(b"x" * (2 << 20))
    with pytest.raises(Unreachable):
        put(pod, model, OTHER)
    assert there(pod, "07" * 32), "what does not fit pushes nothing out"


def test_a_model_cut_short_or_with_another_head_is_damaged(
    cache: Running, model: Path, tmp_path: Path
) -> None:
    put(cache.as_pod_of(), model)
    (kept,) = cache.files()
    whole = kept.read_bytes()
    kept.write_bytes(b"?" + whole[1:])
    with pytest.raises(Damaged), cache.as_pod_of().get(KEY):
        pass
    line, _, rest = whole.partition(b"\n")
    longer = line.replace(b"11]", b"99]")
    assert longer != line
    kept.write_bytes(longer + b"\n" + rest)
    with cache.as_pod_of().get(KEY) as found:
        assert isinstance(found, Found)
        with pytest.raises(Damaged, match="shorter"):
            unpack(found, tmp_path / "copy")


def wait_for(holds: object) -> None:
    assert callable(holds)
    ticks = threading.Event()
    for _ in range(1_000):
        if holds():
            return
        ticks.wait(0.02)
    raise AssertionError("not in time")
