from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from trimtab.core.clock import ManualClock
from trimtab.core.errors import InvalidInput, NotFound, Unreachable
from trimtab.core.spec import Source
from trimtab.source import alias_now, resolve, stamp_of
from trimtab.source.lazy import quiet_mlflow, store_is_absent, without_secrets
from trimtab.source.registry import LOCAL_FILES, ModelRef, parse_model_uri


def test_a_version_is_itself(registry: Any) -> None:
    assert resolve("models:/iris/2", ManualClock(wall_s=5.0)) == Source(
        "models:/iris/2", resolved_uri="models:/iris/2", version="2", asked=registry.uri, resolved_at_s=5.0
    )


def test_an_alias_becomes_its_version_and_is_remembered(registry: Any) -> None:
    found = resolve("models:/iris@champion")
    assert (found.resolved_uri, found.version, found.alias) == ("models:/iris/1", "1", "champion")
    assert found.uri == "models:/iris@champion"


def test_latest_becomes_the_highest_version(registry: Any) -> None:
    assert resolve("models:/iris/latest").version == "2"


def test_a_run_becomes_the_model_that_it_logged(registry: Any) -> None:
    assert resolve(f"runs:/{registry.runs[1]}/model").resolved_uri == f"models:/{registry.models[1]}"


def test_a_model_id_is_concrete(registry: Any) -> None:
    uri = f"models:/{registry.models[0]}"
    assert resolve(uri).resolved_uri == uri


def test_a_stamp_tells_versions_from_each_other_and_not_the_ways_to_name_one(registry: Any) -> None:
    stamp = stamp_of(resolve("models:/iris/1"))
    assert stamp == stamp_of(resolve("models:/iris@champion"))
    assert registry.models[0] in stamp, "the number alone comes again when the model is registered anew"
    assert stamp != stamp_of(resolve("models:/iris/2"))
    assert stamp_of(resolve(f"runs:/{registry.runs[1]}/model")) == f"models:/{registry.models[1]}"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_paths_need_no_server(written: Any, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = resolve(form.format(written.saved))
    assert (found.resolved_uri, found.asked) == (str(written.saved.resolve()), LOCAL_FILES)


def test_a_relative_path_becomes_absolute(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written.folder)
    assert resolve("saved").resolved_uri == str(written.saved.resolve())


def test_a_store_of_its_own_is_passed_on() -> None:
    found = resolve("s3://bucket/models/iris")
    assert (found.resolved_uri, found.asked) == ("s3://bucket/models/iris", "s3://bucket")


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        ("models:/iris/9", "no version 9", "2, 1"),
        ("models:/iris@nosuch", "no alias `nosuch`", "@champion"),
        ("models:/iris/Production", "stage `Production`", "2, 1"),
        ("models:/nosuch/1", "no registered model `nosuch`", "registered there: iris"),
        ("models:/m-0123456789abcdef", "m-0123456789abcdef", "MLFLOW_TRACKING_URI"),
        ("runs:/nosuch/model", "runs:/nosuch/model", "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_missing_names_the_server_and_what_is_there(
    registry: Any, uri: str, says: str, hint: str
) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(uri)
    assert caught.value.where == registry.uri
    assert says in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("uri", ["", "models:/", "models:/iris", "models:/iris@", "runs:/abc"])
def test_what_is_not_a_uri_is_refused_with_the_forms(registry: Any, uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(uri)
    assert "models:/" in caught.value.hint or "runs:/" in caught.value.hint


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").touch()
    with pytest.raises(InvalidInput, match="is not a folder"):
        resolve(str(tmp_path / "model.pkl"))
    with pytest.raises(NotFound):
        resolve(str(tmp_path / "nosuch"))


def test_without_any_server_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as caught:
        resolve("models:/iris/1")
    assert "set MLFLOW_TRACKING_URI" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{port}")
    with pytest.raises(Unreachable) as caught:
        resolve("models:/iris/1")
    assert caught.value.where == f"http://127.0.0.1:{port}"
    assert "Connection refused" in caught.value.message
    assert "secret" not in str(caught.value)


def test_an_alias_that_moves_and_goes(registry: Any) -> None:
    found = resolve("models:/iris@champion")
    with quiet_mlflow(0) as mlflow:
        client = mlflow.MlflowClient()
        assert alias_now(found) == "1"
        client.set_registered_model_alias("iris", "champion", "2")
        try:
            assert alias_now(found) == "2"
            client.delete_registered_model_alias("iris", "champion")
            assert alias_now(found) == ""
        finally:
            client.set_registered_model_alias("iris", "champion", "1")


def test_an_alias_of_a_registry_that_is_away_is_unknown(tmp_path: Path) -> None:
    gone = Source(
        "x", resolved_uri="models:/iris/1", version="1", alias="a", asked=f"sqlite:///{tmp_path}/no.db"
    )
    assert alias_now(gone) is None
    assert list(tmp_path.iterdir()) == []
    assert alias_now(Source("models:/iris/1", resolved_uri="models:/iris/1")) is None


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("models:/iris/3", ModelRef(name="iris", version="3")),
        ("models:/main.default.iris/3", ModelRef(name="main.default.iris", version="3")),
        ("models:/iris@champion", ModelRef(name="iris", alias="champion")),
        ("models:/iris/3/part/a", ModelRef(name="iris", version="3", path="part/a")),
        ("models:/iris/Staging", ModelRef(name="iris", stage="Staging")),
        ("models:/m-0a1b", ModelRef(model_id="m-0a1b")),
    ],
)
def test_the_forms_of_a_model_uri(uri: str, ref: ModelRef) -> None:
    assert parse_model_uri(uri) == ref


def test_secrets_are_left_out() -> None:
    assert (
        without_secrets("https://ann:pw@mlflow.example:5000/base?token=x")
        == "https://mlflow.example:5000/base"
    )
    assert without_secrets("postgresql://ann:pw@db/mlflow") == "postgresql://db/mlflow"
    assert without_secrets("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_which_local_stores_are_absent(tmp_path: Path) -> None:
    (tmp_path / "there.db").write_text("")
    assert not store_is_absent(f"sqlite:///{tmp_path}/there.db")
    assert store_is_absent(f"sqlite:///{tmp_path}/gone.db")
    assert store_is_absent(f"file://{tmp_path}/gone")
    assert not store_is_absent("http://127.0.0.1:9")


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with quiet_mlflow(1, timeout_s=3):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77", "the user's own wins"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
