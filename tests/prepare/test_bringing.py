"""Where a pod gets its model, with a cache that runs and a registry that is there, says no, or is away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.modelcache.running import Running, running
from trimtab.core.errors import TrimtabError, Unauthorised, Unreachable
from trimtab.core.spec import Source
from trimtab.prepare import bringing
from trimtab.prepare.bringing import bring
from trimtab.source import cache as models_cache

URI = "models:/iris/1"


class Registry:
    """Stands for a tracking server: `downloads` counts them, `refuses` is raised at whatever is asked."""

    def __init__(self, files: Path) -> None:
        self.files, self.downloads, self.stamp = files, 0, "made at 1"
        self.refuses: TrimtabError | None = None

    def resolve(self, uri: str) -> Source:
        if self.refuses:
            raise self.refuses
        return Source(uri, resolved_uri=uri, asked="http://mlflow")

    def stamp_of(self, source: Source) -> str:
        return self.stamp

    def download(self, source: Source, models: Path) -> Source:
        self.downloads += 1
        with models_cache.incoming(models) as folder:
            copied = Path(shutil.copytree(self.files, folder / "model"))
            digest = models_cache.digest_of(copied)
            models_cache.adopt(copied, models, digest)
        return replace(source, digest=digest)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    files = tmp_path / "files"
    (files / "data").mkdir(parents=True)
    (files / "MLmodel").write_text("flavors: {}")
    (files / "data" / "weights").write_bytes(b"w" * 5_000)
    found = Registry(files)
    for name in ("resolve", "stamp_of", "download"):
        monkeypatch.setattr(bringing, name, getattr(found, name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ours")
    return found


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Path]:
    """A folder of models of each pod in turn: `next`."""
    return (tmp_path / "pods" / str(number) for number in range(100))


def test_the_second_pod_downloads_nothing(cache: Running, registry: Registry, pods: Iterator[Path]) -> None:
    first = bring(URI, next(pods), cache.as_pod_of())
    second = bring(URI, next(pods), cache.as_pod_of())
    assert registry.downloads == 1
    assert (
        models_cache.digest_of(second)
        == models_cache.digest_of(first)
        == models_cache.digest_of(registry.files)
    )
    bring(URI, next(pods), cache.as_pod_of("rivals"))
    assert registry.downloads == 2, "what others brought is not theirs"


def test_a_registry_that_is_away_stops_no_pod_whose_model_is_there(
    cache: Running,
    registry: Registry,
    pods: Iterator[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bring(URI, next(pods), cache.as_pod_of())
    registry.refuses = Unreachable("does not answer", where="http://mlflow")
    found = bring(URI, next(pods), cache.as_pod_of())
    assert (found / "MLmodel").read_text() == "flavors: {}"
    assert "since http://mlflow does not answer" in capfd.readouterr().err
    for other in ("models:/iris/2", "models:/other/1"):
        with pytest.raises(Unreachable, match="does not answer"):
            bring(other, next(pods), cache.as_pod_of())
    with pytest.raises(Unreachable):
        bring(URI, next(pods), cache.as_pod_of("rivals"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "guessed")
    with pytest.raises(Unreachable):
        bring(URI, next(pods), cache.as_pod_of())


def test_whom_the_registry_refuses_the_cache_gives_nothing(
    cache: Running, registry: Registry, pods: Iterator[Path]
) -> None:
    bring(URI, next(pods), cache.as_pod_of())
    registry.refuses = Unauthorised("may not be read", where="http://mlflow")
    with pytest.raises(Unauthorised):
        bring(URI, next(pods), cache.as_pod_of())


def test_another_model_under_the_same_name_is_fetched(
    cache: Running, registry: Registry, pods: Iterator[Path]
) -> None:
    bring(URI, next(pods), cache.as_pod_of())
    registry.stamp = "made at 2"
    (registry.files / "MLmodel").write_text("another")
    for _ in range(2):
        assert (bring(URI, next(pods), cache.as_pod_of()) / "MLmodel").read_text() == "another"
    assert registry.downloads == 2


def test_what_was_damaged_is_noticed_and_fetched_anew(
    cache: Running, registry: Registry, pods: Iterator[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    bring(URI, next(pods), cache.as_pod_of())
    (kept,) = cache.files()
    kept.write_bytes(kept.read_bytes()[:-1] + b"W")
    found = bring(URI, next(pods), cache.as_pod_of())
    assert models_cache.digest_of(found) == models_cache.digest_of(registry.files)
    assert "is not what was brought there, and is fetched anew" in capfd.readouterr().err
    assert registry.downloads == 2
    bring(URI, next(pods), cache.as_pod_of())
    assert registry.downloads == 2


def test_without_a_cache_that_answers_it_is_as_if_there_were_none(
    cache: Running, registry: Registry, pods: Iterator[Path]
) -> None:
    nobody = replace(cache, port=1).as_pod_of()
    assert bring(URI, next(pods), nobody).is_dir()
    (cache.tokens / "away").write_text("the API server is away")
    unsure = bringing.NodeCache(f"http://127.0.0.1:{cache.port}", cache.tokens / "away")
    assert bring(URI, next(pods), unsure).is_dir()
    assert registry.downloads == 2


def test_a_store_whose_folders_may_be_written_over_is_not_cached(
    cache: Running, registry: Registry, pods: Iterator[Path]
) -> None:
    for _ in range(2):
        bring("s3://bucket/model", next(pods), cache.as_pod_of())
    assert (registry.downloads, cache.files()) == (2, [])
