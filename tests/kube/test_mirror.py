"""A mirror of real objects stays true: across watches that end, versions that are gone, kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.cluster.place import here
from tests.kube.words import until
from trimtab.core.errors import Conflict, InvalidInput, NotFound, Unauthorised, Unreachable
from trimtab.kube import Api, Json, Key, Mirror, Resource, Selection, watch

pytestmark = pytest.mark.kube

MAPS = Resource("v1", "configmaps")


def labelled(name: str, value: str = "a") -> Json:
    metadata = {"name": name, "labels": {"of": "the-test"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


def value_of(body: Json) -> str:
    return str(body["data"]["value"])


@asynccontextmanager
async def mirrored(api: Api, namespace: str, seen: list[Key] | None = None) -> AsyncIterator[Mirror[str]]:
    """A mirror that follows, its first list complete."""
    note = seen.append if seen is not None else lambda _: None
    mirror = Mirror(api, Selection(MAPS, "of=the-test", namespace), value_of, note)
    following = asyncio.create_task(mirror.follow())
    try:
        await asyncio.wait_for(mirror.listed.wait(), 60)
        yield mirror
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_it_lists_in_pages_and_follows_each_change(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PAGE", 2)
    for number in range(5):
        await api.create(MAPS.path(namespace), labelled(f"m{number}"))
    await api.create(MAPS.path(namespace), labelled("other") | {"metadata": {"name": "other"}})
    seen: list[Key] = []
    async with mirrored(api, namespace, seen) as mirror:
        assert mirror.objects == {(namespace, f"m{number}"): "a" for number in range(5)}
        assert sorted(seen) == sorted(mirror.objects)

        await api.create(MAPS.path(namespace), labelled("new", "n"))
        await api.apply(MAPS.path(namespace, "m0"), labelled("m0", "b"))
        await api.delete(MAPS.path(namespace, "m1"))
        await until(lambda: mirror.objects.get((namespace, "new")) == "n")
        await until(lambda: mirror.objects.get((namespace, "m0")) == "b")
        await until(lambda: (namespace, "m1") not in mirror.objects)
        assert (mirror.lists, mirror.watches) == (1, 1)
        assert seen[5:] == [(namespace, "new"), (namespace, "m0"), (namespace, "m1")]


async def test_a_watch_that_ended_goes_on_where_it_was(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_S", 1)
    seen: list[Key] = []
    async with mirrored(api, namespace, seen) as mirror:
        for number in range(20):
            await api.create(MAPS.path(namespace), labelled(f"m{number}"))
            await asyncio.sleep(0.1)
        await until(lambda: len(mirror.objects) == 20 and mirror.watches > 2)
        assert mirror.lists == 1
        assert seen == [(namespace, f"m{number}") for number in range(20)], (
            "each once: nothing was told again"
        )


async def test_bookmarks_move_its_version_on(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a mirror of objects that rest would have to list anew after each longer pause."""
    monkeypatch.setattr(watch, "WATCH_S", 8)  # a bookmark comes 2 s before the end of each watch
    async with mirrored(api, namespace) as mirror:
        before = mirror.version
        await api.create(MAPS.path(namespace), labelled("other") | {"metadata": {"name": "other"}})
        await until(lambda: mirror.version != before, within_s=180)  # one a minute is promised, roughly
        assert mirror.objects == {}
        assert mirror.lists == 1


async def test_a_version_that_is_gone_is_listed_anew(
    api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_S", 1)
    if os.environ["KUBECONFIG"] == str(here().kubeconfig):  # one that is new has all that there ever was
        os.kill(_api_server(), signal.SIGKILL)
        await until(lambda: _is_created(api, namespace))
    await api.apply(MAPS.path(namespace, "after"), labelled("after"))
    async with mirrored(api, namespace) as mirror:
        mirror.version = "1"  # as after a long sleep
        await until(lambda: mirror.lists == 2)
        await api.create(MAPS.path(namespace), labelled("n"))
        await until(lambda: len(mirror.objects) == 2)


async def test_it_outlives_a_killed_api_server(api: Api, namespace: str) -> None:
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("the cluster is not ours to break")
    async with mirrored(api, namespace) as mirror:
        await api.create(MAPS.path(namespace), labelled("before"))
        await until(lambda: len(mirror.objects) == 1)
        os.kill(_api_server(), signal.SIGKILL)
        await until(lambda: _is_created(api, namespace))
        await until(lambda: len(mirror.objects) == 2)
        await api.delete(MAPS.path(namespace, "before"))
        await until(lambda: list(mirror.objects) == [(namespace, "after")])


async def _is_created(api: Api, namespace: str) -> bool:
    try:
        await api.create(MAPS.path(namespace), labelled("after"))
    except Conflict:
        return True
    except (Unreachable, Unauthorised):  # it starts: what it may allow is not known yet either
        return False
    return True


def _api_server() -> int:
    """Of our cluster, as this machine numbers it."""
    wanted = f"{here().folder}/api.key".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"kube-apiserver" in command and wanted in command:
            return int(path.parent.name)
    raise AssertionError("no API server runs")


async def test_what_is_refused_is_explained(api: Api, namespace: str) -> None:
    await api.create(MAPS.path(namespace), labelled("m"))
    cases: list[tuple[type[Exception], Any, str]] = [
        (NotFound, api.get(MAPS.path(namespace, "none")), "not found"),
        (Conflict, api.create(MAPS.path(namespace), labelled("m")), "already exists"),
        (InvalidInput, api.create(MAPS.path(namespace), labelled("A b")), "metadata.name"),
    ]
    for kind, call, words in cases:
        with pytest.raises(kind, match=words):
            await call
    await api.delete(MAPS.path(namespace, "none"))  # no error


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no Kubernetes to speak to"):
        await Api.connect("trimtab-tests", str(tmp_path / "none"))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        '{"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [],'
        ' "contexts": [{"name": "x", "context": {"cluster": "c"}}], "current-context": "x"}'
    )
    nobody = await Api.connect("trimtab-tests", str(kubeconfig))
    with pytest.raises(Unreachable, match="does not answer"):
        await nobody.get("/readyz")
    await nobody.close()
