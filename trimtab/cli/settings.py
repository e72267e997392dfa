"""`--set KEY=VALUE`: one setting of a spec, by the name that it has in YAML."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable

from trimtab.core.errors import InvalidInput
from trimtab.v1 import control_pb2 as pb

Setter = Callable[[pb.Spec, str], None]


def apply_settings(spec: pb.Spec, settings: Iterable[str]) -> None:
    """Change `spec`, which has its one model already. Raises InvalidInput naming the key that is wrong."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        where = f"--set {key}"
        if not equals:
            raise InvalidInput("has no value", where=where, hint=f"write --set {key}=VALUE")
        group = next((each for each in _GROUPS if key.startswith(each) and len(key) > len(each)), "")
        if group:
            _GROUPS[group](spec.models[0], key.removeprefix(group), value)
            continue
        if key not in _SETTERS:
            raise InvalidInput("there is no such setting", where=where, hint=_known(key))
        _SETTERS[key](spec, value)


def _known(key: str) -> str:
    keys = [*_SETTERS, *(f"{group}NAME" for group in _GROUPS)]
    near = difflib.get_close_matches(key, keys, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}known: {', '.join(keys)}"


def _whole(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidInput(f"`{value}` is not a whole number", where=f"--set {key}") from None


def _seconds(key: str, value: str) -> float:
    try:
        return float(value.removesuffix("s"))
    except ValueError:
        raise InvalidInput(f"`{value}` is not a number of seconds", where=f"--set {key}") from None


def _set_env(model: pb.Model, name: str, value: str) -> None:
    model.env[name] = value


def _set_node_selector(model: pb.Model, name: str, value: str) -> None:
    model.node_selector[name] = value


def _set_extended(model: pb.Model, name: str, value: str) -> None:
    model.resources.extended[name] = _whole(f"resources.extended.{name}", value)


_GROUPS: dict[str, Callable[[pb.Model, str, str], None]] = {
    "env.": _set_env,
    "node_selector.": _set_node_selector,
    "resources.extended.": _set_extended,
}


def _set_runtime(spec: pb.Spec, value: str) -> None:
    spec.models[0].runtime = value
    if value != "custom":  # what an earlier deploy said of a server of one's own is over with it
        spec.models[0].ClearField("custom")


def _set_command(spec: pb.Spec, value: str) -> None:
    try:
        words = shlex.split(value)
    except ValueError as error:
        hint = "write it as for a shell: 'python3 server.py --port {port}'"
        raise InvalidInput(f"`{value}` cannot be read: {error}", where="custom.command", hint=hint) from None
    spec.models[0].custom.command[:] = words
    spec.models[0].custom.image = ""
    spec.models[0].custom.port = 0  # it was that of the image


def _set_image(spec: pb.Spec, value: str) -> None:
    spec.models[0].custom.image = value
    del spec.models[0].custom.command[:]


def _set_protocols(spec: pb.Spec, value: str) -> None:
    spec.models[0].custom.protocols[:] = [name.strip() for name in value.split(",")]


def _set_ready_path(spec: pb.Spec, value: str) -> None:
    spec.models[0].custom.ready_path = value


def _set_port(spec: pb.Spec, value: str) -> None:
    spec.models[0].custom.port = _whole("custom.port", value)


def _set_env_manager(spec: pb.Spec, value: str) -> None:
    spec.models[0].env_manager = value


def _set_tracking_uri(spec: pb.Spec, value: str) -> None:
    spec.models[0].tracking_uri = value


def _set_secret(spec: pb.Spec, value: str) -> None:
    spec.models[0].ClearField("secret_ref")
    if value:
        spec.models[0].secret_ref.name = value


def _set_cpu(spec: pb.Spec, value: str) -> None:
    spec.models[0].resources.cpu = value


def _set_memory(spec: pb.Spec, value: str) -> None:
    spec.models[0].resources.memory = value


def _set_low(spec: pb.Spec, value: str) -> None:
    spec.models[0].concurrency.min = _whole("concurrency.min", value)


def _set_high(spec: pb.Spec, value: str) -> None:
    spec.models[0].concurrency.max = _whole("concurrency.max", value)


def _set_start_timeout(spec: pb.Spec, value: str) -> None:
    spec.models[0].start_timeout_s = _seconds("start_timeout_s", value)


def _set_request_timeout(spec: pb.Spec, value: str) -> None:
    spec.request_timeout_s = _seconds("request_timeout_s", value)


def _set_max_pods(spec: pb.Spec, value: str) -> None:
    spec.max_pods = _whole("max_pods", value)


_SETTERS: dict[str, Setter] = {
    "runtime": _set_runtime,
    "custom.command": _set_command,
    "custom.image": _set_image,
    "custom.protocols": _set_protocols,
    "custom.ready_path": _set_ready_path,
    "custom.port": _set_port,
    "env_manager": _set_env_manager,
    "tracking_uri": _set_tracking_uri,
    "secret_ref": _set_secret,
    "resources.cpu": _set_cpu,
    "resources.memory": _set_memory,
    "concurrency.min": _set_low,
    "concurrency.max": _set_high,
    "start_timeout_s": _set_start_timeout,
    "request_timeout_s": _set_request_timeout,
    "max_pods": _set_max_pods,
}
