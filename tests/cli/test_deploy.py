from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from trimtab.core.errors import Conflict, Exhausted, Failed, InvalidInput, Problem, Unauthorised
from trimtab.v1 import control_pb2 as pb

Run = Callable[..., Result]


def last_apply(control: Any) -> pb.ApplyEndpointRequest:
    return [request for request in control.asked if isinstance(request, pb.ApplyEndpointRequest)][-1]


def test_deploy_copies_the_model_and_says_how_to_call_it(
    run: Run, control: Any, home: Path, model: Path
) -> None:
    done = run("deploy", str(model), "--name", "iris", "--concurrency", "4..256")
    assert done.exit_code == 0, done.stderr
    request = last_apply(control)
    served = request.spec.models[0]
    assert (served.concurrency.min, served.concurrency.max) == (4, 256)
    assert set(request.client_stages_s) == {"resolve", "download"}
    assert request.by.count("@") == 1
    folder = home / "models" / served.source.digest.replace(":", "-")
    assert (folder / "weights").read_bytes() == b"\0" * 100
    assert done.stdout.startswith("curl http://127.0.0.1:8080/serving-endpoints/x/invocations")
    said = done.stderr.split()
    assert [
        said.index(name) for name in ("resolve", "download", "start", "load", "ready", "routed")
    ] == sorted(said.index(name) for name in ("resolve", "download", "start", "load", "ready", "routed"))


def test_the_curl_holds_the_models_own_example_and_a_key_if_one_is_needed(
    run: Run, control: Any, model: Path
) -> None:
    (model / "serving_input_example.json").write_text('{\n "inputs": [[5.1, 3.5]]}')
    control.platform.api_keys = True
    done = run("deploy", str(model), "--name", "iris")
    assert """-d '{"inputs": [[5.1, 3.5]]}'""" in done.stdout
    assert "authorization: Bearer" in done.stdout


def test_the_manager_of_the_environment_is_part_of_the_spec(run: Run, control: Any, model: Path) -> None:
    assert run("deploy", str(model), "--name", "iris", "--env-manager", "local").exit_code == 0
    assert last_apply(control).spec.models[0].env_manager == "local"
    assert run("deploy", str(model), "--name", "iris", "--set", "env_manager=uv").exit_code == 0
    assert last_apply(control).spec.models[0].env_manager == "uv"


def test_an_update_keeps_what_was_not_said(run: Run, control: Any, model: Path) -> None:
    settings = ["--set", "max_pods=7", "--set", "env.MODE=fast", "--set", "resources.memory=512Mi"]
    assert run("deploy", str(model), "--name", "iris", "--concurrency", "2..9", *settings).exit_code == 0
    (model / "weights").write_bytes(b"other")
    assert run("deploy", str(model), "--name", "iris", "--set", "max_pods=8").exit_code == 0
    spec = last_apply(control).spec
    assert spec.max_pods == 8
    assert (spec.models[0].concurrency.min, spec.models[0].concurrency.max) == (2, 9)
    assert dict(spec.models[0].env) == {"MODE": "fast"}
    assert spec.models[0].resources.memory == "512Mi"
    assert control.endpoint("iris").generation == 2


def test_a_change_without_a_new_revision_shows_no_stages_of_the_rollout_before(
    run: Run, control: Any, model: Path
) -> None:
    run("deploy", str(model), "--name", "iris")
    done = run("deploy", str(model), "--name", "iris", "--concurrency", "1..9")
    assert done.exit_code == 0
    assert "routed" not in done.stderr


def test_a_failed_rollout_shows_cause_log_and_hint(run: Run, control: Any, model: Path) -> None:
    control.outcome = control.fails
    done = run("deploy", str(model), "--name", "iris")
    assert done.exit_code == 1
    assert "| ValueError: no" in done.stderr
    assert "error: iris: the model raised ValueError while loading" in done.stderr
    assert "hint: mend the model" in done.stderr
    assert done.stdout == ""


def test_no_wait_returns_before_it_serves(run: Run, control: Any, model: Path) -> None:
    control.outcome = control.fails
    assert run("deploy", str(model), "--name", "iris", "--no-wait").exit_code == 0
    assert not any(isinstance(request, pb.PruneRequest) for request in control.asked)


def test_waiting_has_a_bound(run: Run, control: Any, model: Path) -> None:
    def never(endpoint: pb.Endpoint) -> list[pb.Status]:
        return control.succeeds(endpoint)[:1]

    control.outcome = never
    done = run("deploy", str(model), "--name", "iris", "--timeout", "0.3")
    assert done.exit_code == 1
    assert "is still DEPLOYING after 0.3 s" in done.stderr
    assert "trimtab status iris" in done.stderr


def test_a_status_of_an_older_generation_is_not_taken_for_success(
    run: Run, control: Any, model: Path
) -> None:
    def old_first(endpoint: pb.Endpoint) -> list[pb.Status]:
        return [
            pb.Status(state=pb.READY, observed_generation=endpoint.generation - 1),
            *control.fails(endpoint),
        ]

    control.outcome = old_first
    assert run("deploy", str(model), "--name", "iris").exit_code == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("7", "is not a range"),
        ("a..b", "is not a range"),
        ("9..2", "write 2..9"),
        ("0..3", "below 1"),
    ],
)
def test_a_wrong_range_is_refused_before_anything_is_copied(
    run: Run, control: Any, home: Path, model: Path, text: str, says: str
) -> None:
    done = run("deploy", str(model), "--name", "iris", "--concurrency", text)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert not (home / "models").exists()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("max_pod=3", "did you mean max_pods?"),
        ("max_pods", "has no value"),
        ("max_pods=many", "`many` is not a whole number"),
        ("resources.cpu=lots", "is not a number of cores"),
        ("resources.memory=1", "too small"),
        ("runtime=nosuch", "is not a runtime here"),
        ("start_timeout_s=-1", "start_timeout_s"),
        ("resources.extended.nvidia.com/gpu=half", "`half` is not a whole number"),
        ("resources.extended.gpu=1", "is no extended resource"),
        ("node_selector.a b=c", "is no label"),
        ("secret_ref=My Secret", "is no name of a Secret"),
        ("env_manager=conda", "uv (an environment of its own), local (trimtab's own)"),
    ],
)
def test_a_wrong_setting_is_refused(run: Run, control: Any, model: Path, setting: str, says: str) -> None:
    done = run("deploy", str(model), "--name", "iris", "--set", setting)
    assert done.exit_code == 2
    assert says in done.stderr
    assert "iris" not in {name for _, name in control.endpoints}


@pytest.mark.parametrize(
    ("name", "says"), [("Iris", "not a valid name"), ("chat", "reserved"), ("-x", "not a valid name")]
)
def test_a_wrong_name_needs_no_server(run: Run, name: str, says: str) -> None:
    done = run("deploy", "models:/iris/1", f"--name={name}")
    assert done.exit_code == 2
    assert says in done.stderr


def test_the_secret_of_a_tracking_server_is_set_and_taken_back(run: Run, control: Any, model: Path) -> None:
    """Here there are none; a cluster has them."""
    assert run("deploy", str(model), "--name", "iris", "--set", "secret_ref=mlflow").exit_code == 0
    assert control.endpoint("iris").spec.models[0].secret_ref.name == "mlflow"
    assert run("deploy", str(model), "--name", "iris", "--set", "secret_ref=").exit_code == 0
    assert not control.endpoint("iris").spec.models[0].HasField("secret_ref")


def test_both_ways_to_name_a_namespace(run: Run, control: Any, model: Path) -> None:
    assert run("deploy", str(model), "--name", "iris", "-n", "team-a").exit_code == 0
    assert run("deploy", str(model), "--name", "iris.team-a").exit_code == 0
    assert control.endpoint("iris", "team-a").generation == 2
    done = run("deploy", str(model), "--name", "iris.team-a", "-n", "team-b")
    assert done.exit_code == 2
    assert "give the namespace once" in done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput.of((Problem("models[0].x", "is wrong", "mend it"), Problem("y", "too"))), 2),
        (Conflict("changed meanwhile", hint="again"), 5),
        (Unauthorised("not you", hint="ask"), 6),
        (Exhausted("the disk is full", hint="free some"), 7),
        (Failed("it broke", hint="mend"), 1),
    ],
)
def test_errors_of_the_server_keep_their_class_words_and_hint(
    run: Run, control: Any, model: Path, error: Any, status: int
) -> None:
    control.refuse["ApplyEndpoint"] = error
    done = run("deploy", str(model), "--name", "iris")
    assert done.exit_code == status
    assert f"error: {error}" in done.stderr
    assert f"hint: {error.hint}" in done.stderr


def test_a_folder_without_a_model_is_named(run: Run, control: Any, home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("deploy", str(tmp_path / "empty"), "--name", "iris")
    assert done.exit_code == 2
    assert "no runtime can serve it: mlflow: there is no file `MLmodel`" in done.stderr
    assert not [path for path in (home / "models").iterdir() if path.is_dir()]


def test_the_runtime_is_picked_from_the_files_and_told(
    run: Run, control: Any, model: Path, tmp_path: Path
) -> None:
    done = run("deploy", str(model), "--name", "iris")
    assert done.exit_code == 0
    assert "mlflow: its `MLmodel` has the flavour `python_function`" in done.stderr
    repository = tmp_path / "repository"
    (repository / "double").mkdir(parents=True)
    (repository / "double" / "config.pbtxt").touch()
    assert run("deploy", str(repository), "--name", "iris").exit_code == 0
    assert control.endpoint("iris").spec.models[0].runtime == "triton"


def test_what_served_before_does_not_say_who_manages_the_environment(
    run: Run, control: Any, model: Path, tmp_path: Path
) -> None:
    """`local` is not for Triton, but for the MLflow model that takes its place."""
    repository = tmp_path / "repository"
    (repository / "double" / "1").mkdir(parents=True)
    (repository / "double" / "config.pbtxt").write_text('backend: "python"\n')
    assert run("deploy", str(repository), "--name", "iris").exit_code == 0
    assert control.endpoint("iris").spec.models[0].runtime == "triton"
    assert run("deploy", str(model), "--name", "iris", "--env-manager", "local").exit_code == 0
    found = last_apply(control).spec.models[0]
    assert (found.runtime, found.env_manager) == ("mlflow", "local")
    asked = ("deploy", str(repository), "--name", "iris", "--runtime", "triton", "--env-manager", "local")
    refused = run(*asked)
    assert refused.exit_code == 2
    assert "`local` is not for `triton`" in refused.stderr


def test_a_runtime_that_does_not_fit_is_refused_with_those_that_do(
    run: Run, control: Any, model: Path
) -> None:
    for asked, says in (("triton", "`triton` cannot serve it"), ("trition", "`trition` is not a runtime")):
        done = run("deploy", str(model), "--name", "iris", "--runtime", asked)
        assert done.exit_code == 2
        assert says in done.stderr
        assert "fits: mlflow: its `MLmodel` has the flavour `python_function`" in done.stderr


def test_a_server_of_ones_own_stays_until_another_runtime_is_asked_for(
    run: Run, control: Any, model: Path
) -> None:
    own = ("--command", "python3 'my server.py' --port {port}", "--protocols", "invocations,openai")
    assert run("deploy", str(model), "--name", "iris", *own).exit_code == 0
    first = control.endpoint("iris").spec.models[0]
    assert (first.runtime, list(first.custom.command)) == (
        "custom",
        ["python3", "my server.py", "--port", "{port}"],
    )
    assert list(first.custom.protocols) == ["invocations", "openai"]
    assert run("deploy", str(model), "--name", "iris", "--ready-path", "/up").exit_code == 0
    second = control.endpoint("iris").spec.models[0]
    assert (second.custom.ready_path, second.custom.command) == ("/up", first.custom.command)
    assert run("deploy", str(model), "--name", "iris", "--runtime", "mlflow").exit_code == 0
    third = control.endpoint("iris").spec.models[0]
    assert (third.runtime, third.HasField("custom")) == ("mlflow", False)


def test_a_server_of_ones_own_as_yaml(run: Run, control: Any, model: Path, tmp_path: Path) -> None:
    text = f"""
name: own
models:
- uri: {model}
  custom:
    command: [./serve, --port, "{{port}}", --threads, 8]
    protocols: [openai]
"""
    assert run("apply", "-f", "-", stdin=text).exit_code == 0
    found = control.endpoint("own").spec.models[0]
    assert (found.runtime, list(found.custom.protocols)) == ("custom", ["openai"])
    assert list(found.custom.command) == ["./serve", "--port", "{port}", "--threads", "8"]
    done = run("apply", "-f", "-", stdin=text.replace("[openai]", "openai"))
    assert (done.exit_code, "models[0].custom.protocols: is not a list" in done.stderr) == (2, True)


def test_a_command_that_cannot_be_read_and_one_beside_another_runtime(
    run: Run, control: Any, model: Path
) -> None:
    done = run("deploy", str(model), "--name", "iris", "--command", "serve 'it")
    assert (done.exit_code, "custom.command: `serve 'it` cannot be read" in done.stderr) == (2, True)
    done = run("deploy", str(model), "--name", "iris", "--runtime", "mlflow", "--command", "./serve")
    assert (done.exit_code, "is not for `mlflow`" in done.stderr) == (2, True)


def test_rollback_waits_for_the_older_revision(run: Run, control: Any, model: Path) -> None:
    run("deploy", str(model), "--name", "iris")
    (model / "weights").write_bytes(b"other")
    run("deploy", str(model), "--name", "iris")
    done = run("rollback", "iris", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1
    assert told["endpoint"]["status"]["wanted_revision"] == 1
    assert told["endpoint"]["generation"] == 3
    run("rollback", "iris", "2")
    assert [r.revision for r in control.asked if isinstance(r, pb.RollbackEndpointRequest)] == [0, 2]


def test_delete(run: Run, control: Any, model: Path) -> None:
    run("deploy", str(model), "--name", "iris")
    done = run("delete", "iris", "--json")
    assert json.loads(done.stdout) == {"schema_version": 1, "deleted": "iris"}
    assert not control.endpoints
    done = run("delete", "iris")
    assert done.exit_code == 4
    assert "no endpoint `iris`" in done.stderr


def test_deploy_json_is_one_document(run: Run, control: Any, model: Path) -> None:
    done = run("deploy", str(model), "--name", "iris", "--json")
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1
    assert told["endpoint"]["status"]["state"] == "READY"
    assert told["endpoint"]["generation"] == 1
    assert told["endpoint"]["status"]["load"] is None, "an unset message is there, as unknown"


OBJECT = """
apiVersion: serving.trimtab.dev/v1alpha1
kind: ServingEndpoint
metadata: {name: iris, namespace: team-a, labels: {team: a}}
spec:
  models:
    - uri: %s
      resources: {cpu: 0.5, memory: 512Mi}
      concurrency: {min: 2, max: 8}
      env: {RETRIES: 3, DEBUG: true}
  max_pods: 4
"""
FLAT = """
name: wine
models: [{uri: %s}]
traffic: [{model: wine, percent: 100}]
"""


def test_apply_takes_both_forms_and_many_documents(
    run: Run, control: Any, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(f"---{OBJECT % model}---{FLAT % model}---\n")
    done = run("apply", "-f", str(file), "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [endpoint["ref"]["name"] for endpoint in told["endpoints"]] == ["iris", "wine"]
    iris = control.endpoint("iris", "team-a").spec
    assert iris.max_pods == 4
    assert iris.models[0].resources.cpu == "0.5"
    assert dict(iris.models[0].env) == {"RETRIES": "3", "DEBUG": "true"}
    assert iris.models[0].source.digest.startswith("sha256:")
    assert control.endpoint("wine").spec.traffic[0].percent == 100


def test_apply_takes_what_kubernetes_takes(run: Run, control: Any, model: Path) -> None:
    written = OBJECT.replace("max_pods", "requestTimeoutSeconds: 7\n  maxPods") % model
    assert run("apply", "-f", "-", stdin=written).exit_code == 0
    spec = control.endpoint("iris", "team-a").spec
    assert (spec.max_pods, spec.request_timeout_s) == (4, 7)


def test_apply_says_all_what_it_leaves_out_is_default(run: Run, control: Any, model: Path) -> None:
    assert run("apply", "-f", "-", "-n", "team-a", stdin=OBJECT % model).exit_code == 0
    short = f"name: iris\nnamespace: team-a\nmodels: [{{uri: {model}}}]\n"
    assert run("apply", "-f", "-", stdin=short).exit_code == 0
    assert control.endpoint("iris", "team-a").spec.max_pods == 0


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        (
            "name: iris\nmodels:\n- uri: x\n  concurency: {min: 1}\n",
            "-:4: models[0].concurency",
            "`concurrency`",
        ),
        ("name: iris\nmodles: []\n", "-:2: modles", "`models`"),
        ("name: iris\nmodels:\n- uri: x\n  source: {digest: y}\n", "-:4: models[0].source", "unknown key"),
        ("name: iris\nmodels: x\n", "-:2: models", "is not a list"),
        ("name: iris\nmodels: [x]\n", "-:2: models[0]", "is not a mapping"),
        ("name: iris\nmodels: [{uri: x, env: [A]}]\n", "models[0].env", "is not a mapping"),
        ("name: iris\nmax_pods: lots\nmodels: [{uri: x}]\n", "-", "max_pods"),
        ("name: chat\nmodels: [{uri: x}]\n", "-:1: name", "reserved"),
        ("models: [{uri: x}]\n", "name", "is empty"),
        ("name: iris\nmodels: []\n", "models", "is empty"),
        ("name: iris\nmodels: [{uri: x, concurrency: {min: 9, max: 2}}]\n", "concurrency", "reversed"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {}\n", "-:1: kind", "ServingEndpoint"),
        ("kind: ServingEndpoint\n", "spec", "is missing"),
        ("name: [unclosed\n", "-:2", "is not YAML"),
        ("- a\n- b\n", "-:1", "is not an endpoint"),
        ("", "-", "holds no endpoint"),
        ("name: a\nmodels: [{uri: x}]\n---\nname: a\nmodels: [{uri: x}]\n", "-", "more than once"),
    ],
)
def test_apply_names_the_place_of_what_is_wrong(
    run: Run, control: Any, text: str, where: str, says: str
) -> None:
    done = run("apply", "-f", "-", stdin=text)
    assert done.exit_code == 2, done.output
    assert where in done.stderr
    assert says in done.stderr
    assert not control.endpoints


def test_apply_of_a_missing_file(run: Run) -> None:
    done = run("apply", "-f", "/nowhere/endpoints.yaml")
    assert done.exit_code == 4
    assert "/nowhere/endpoints.yaml" in done.stderr


def test_a_relative_path_is_taken_from_here(
    run: Run, control: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert run("deploy", "model", "--name", "iris").exit_code == 0
    assert last_apply(control).spec.models[0].source.resolved_uri == os.path.realpath(model)
