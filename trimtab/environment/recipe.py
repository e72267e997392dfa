"""What a model's environment should hold, as recorded when the model was logged. Pure.

MLflow writes `python_env.yaml` (the Python, and `-r requirements.txt`), `requirements.txt` and `conda.yaml`
beside the model; older versions wrote the last alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import yaml

from trimtab.core.errors import InvalidInput
from trimtab.environment.requirements import Read, expanded, lines_of, name_of, names_a_file, normal

LOCAL_HINT = "--env-manager local"
SETUPTOOLS = "setuptools"
OLD_SETUPTOOLS = (
    "setuptools<81"  # of any version: later ones lack pkg_resources, which MLflow 2.15 still imports
)
_CONDA = re.compile(r"(?:[\w.-]+::)?(?P<name>[A-Za-z0-9_.-]+)\s*(?P<rest>.*)")
_EXACT = re.compile(r"==?\s*(?P<version>[0-9][0-9.]*)(=.*)?")
_VERSION = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a wide signature takes the other one a second
_MLFLOW = frozenset({"mlflow", "mlflow-skinny"})
_CONDAS_OWN = frozenset({"python", "pip"})


@dataclass(frozen=True)
class Recipe:
    """The Python (`3.11.7`) and the lines of requirements. `build` is what packages were built with then."""

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    @property
    def minor(self) -> str:
        """`3.11`: within it pickles, bytecode and compiled modules of one Python are those of another."""
        return ".".join(self.python.split(".")[:2])

    @property
    def needs_the_models_files(self) -> bool:
        """Whether a line names a file of the model's folder: a wheel beside it, for example."""
        return any(map(names_a_file, (*self.requirements, *self.constraints)))


def key_of(recipe: Recipe, runtime: str, digest: str) -> str:
    """The name of the environment with this content: 24 hex digits.

    `runtime` names the content of trimtab-runtime, `digest` the model's files, which count only if a
    requirement is among them. The order of lines and their spelling do not count.
    """
    content = {
        "python": recipe.python,
        "requirements": sorted(set(map(normal, recipe.requirements))),
        "constraints": sorted(set(map(normal, recipe.constraints))),
        "build": sorted(set(map(normal, recipe.build))),
        "runtime": runtime,
        "files": digest if recipe.needs_the_models_files else "",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def recipe_of(read: Read) -> Recipe | None:
    """What the files of a model record; None if they record no requirements. Raises InvalidInput."""
    described = _mapping(read, "MLmodel")
    flavor = _inner(_inner(described, "flavors"), "python_function")
    names = _file_names(flavor.get("env"))
    logged_with = str(flavor.get("python_version") or "")
    if read(names["virtualenv"]) is not None:
        found = _from_python_env(_mapping(read, names["virtualenv"]), names["virtualenv"])
    elif read(names["conda"]) is not None:
        found = _from_conda(_mapping(read, names["conda"]), names["conda"])
    elif read("requirements.txt") is not None:
        found = _Found("requirements.txt", "", ["-r requirements.txt"], [])
    else:
        return None
    python = found.python or logged_with
    if not _VERSION.fullmatch(python):
        hint = f"log the model again, or deploy it with {LOCAL_HINT}"
        raise InvalidInput(f"does not tell which Python: `{python}`", where=found.where, hint=hint)
    return _complete(found, python, str(described.get("mlflow_version") or ""), read)


@dataclass(frozen=True)
class _Found:
    where: str
    python: str
    dependencies: list[str]
    build: list[str]


def _complete(found: _Found, python: str, mlflow_version: str, read: Read) -> Recipe:
    """With files that name files read, and with the MLflow that saved the model if nothing names one."""
    lines = [line for dependency in found.dependencies for line in lines_of(dependency)]
    told = list(expanded(iter(lines), found.where, read))
    requirements = [line for constrains, line in told if not constrains]
    if not _MLFLOW & set(map(name_of, requirements)):
        released = _VERSION.fullmatch(mlflow_version)
        requirements.append(f"mlflow=={mlflow_version}" if released else "mlflow")
    constraints = [line for constrains, line in told if constrains and not line.startswith("-")]
    build = [line for line in found.build if name_of(line) not in ("", "pip", SETUPTOOLS)]
    build.append(next((line for line in found.build if _pins_setuptools(line)), OLD_SETUPTOOLS))
    return Recipe(python, tuple(dict.fromkeys(requirements)), tuple(dict.fromkeys(constraints)), tuple(build))


def _pins_setuptools(line: str) -> bool:
    return name_of(line) == SETUPTOOLS and normal(line) != SETUPTOOLS


def _file_names(env: Any) -> dict[str, str]:
    """Where a model says its requirements are: both forms of it, or one file for conda alone."""
    told = env if isinstance(env, dict) else {"conda": env}
    usual = {"virtualenv": "python_env.yaml", "conda": "conda.yaml"}
    return {kind: str(told.get(kind) or name) for kind, name in usual.items()}


def _from_python_env(content: dict[str, Any], where: str) -> _Found:
    return _Found(
        where,
        str(content.get("python") or ""),
        _texts(content, "dependencies", where),
        _texts(content, "build_dependencies", where),
    )


def _from_conda(content: dict[str, Any], where: str) -> _Found:
    """Of a conda environment uv can make what pip installs, and the Python; anything else is refused."""
    python, pip, others = "", [], []
    for entry in content.get("dependencies") or ():
        if isinstance(entry, dict):
            pip += _texts(entry, "pip", where)
            continue
        said = _CONDA.fullmatch(str(entry).strip())
        name = said["name"].lower() if said else str(entry)
        if name == "python" and said:
            exact = _EXACT.fullmatch(said["rest"].strip())
            python = exact["version"] if exact else ""
        elif name not in _CONDAS_OWN:
            others.append(str(entry))
    if others:
        hint = f"log the model with pip_requirements, or deploy it with {LOCAL_HINT}"
        message = f"wants packages of conda, which uv does not install: {', '.join(others[:5])}"
        raise InvalidInput(message, where=where, hint=hint)
    return _Found(where, python, pip, [])


def _inner(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _texts(content: dict[str, Any], key: str, where: str) -> list[str]:
    found = content.get(key) or []
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        hint = f"log the model again, or deploy it with {LOCAL_HINT}"
        raise InvalidInput(f"`{key}` is not a list of texts", where=where, hint=hint)
    return found


def _mapping(read: Read, name: str) -> dict[str, Any]:
    try:
        content = yaml.load(read(name) or "", Loader=_LOADER)  # noqa: S506 - either is a safe one
    except yaml.YAMLError as error:
        hint = f"log the model again, or deploy it with {LOCAL_HINT}"
        raise InvalidInput(f"is not YAML: {error}", where=name, hint=hint) from error
    return content if isinstance(content, dict) else {}
