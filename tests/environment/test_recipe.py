"""What is read from a model's folder, and what names an environment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import InvalidInput
from trimtab.environment.recipe import Recipe, key_of, recipe_of

MLMODEL = """
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    python_version: 3.11.7
mlflow_version: 3.17.2
"""
PYTHON_ENV = """
python: 3.10.13
build_dependencies: [pip==23.2.1, setuptools==65.5.0, wheel]
dependencies: [-r requirements.txt]
"""
NAMES = st.sampled_from(["scikit-learn", "numpy", "xgboost", "torch", "a", "Some.Package"])
PINS = st.builds(
    "{}{}{}".format, NAMES, st.sampled_from(["==", ">=", "~="]), st.sampled_from(["1.2", "1.5.2"])
)


def read(**files: str) -> Recipe | None:
    """Of files by their name, `__` for a dot."""
    texts = {name.replace("__", "."): text for name, text in files.items()}
    return recipe_of(texts.get)


def test_what_mlflow_writes_today() -> None:
    requirements = "mlflow==3.17.2\nscikit-learn==1.5.2  # as trained\n\nnumpy<2.3\n"
    found = read(MLmodel=MLMODEL, python_env__yaml=PYTHON_ENV, requirements__txt=requirements)
    wanted = ("mlflow==3.17.2", "scikit-learn==1.5.2", "numpy<2.3")
    assert found == Recipe("3.10.13", wanted, build=("wheel", "setuptools==65.5.0"))
    assert found.minor == "3.10"


def test_a_model_without_a_word_of_mlflow_gets_the_one_that_saved_it() -> None:
    found = read(MLmodel=MLMODEL, python_env__yaml=PYTHON_ENV, requirements__txt="numpy")
    assert found is not None
    assert found.requirements == ("numpy", "mlflow==3.17.2")
    skinny = read(MLmodel=MLMODEL, python_env__yaml=PYTHON_ENV, requirements__txt="mlflow_skinny==3.1")
    assert skinny is not None
    assert skinny.requirements == ("mlflow_skinny==3.1",)
    unreleased = MLMODEL.replace("3.17.2", "3.18.0.dev0")
    found = read(MLmodel=unreleased, python_env__yaml=PYTHON_ENV, requirements__txt="numpy")
    assert found is not None
    assert found.requirements == ("numpy", "mlflow"), "no index has that one"


def test_old_models_have_conda_alone() -> None:
    old = "flavors: {python_function: {env: conda.yaml, python_version: 3.8.1}}"
    conda = "dependencies: [python=3.9.7, pip<=21, {pip: [mlflow<3, 'scikit-learn==1.0']}]"
    wanted = Recipe("3.9.7", ("mlflow<3", "scikit-learn==1.0"), build=("setuptools<81",))
    assert read(MLmodel=old, conda__yaml=conda) == wanted
    ranged = read(MLmodel=old, conda__yaml=conda.replace("=3.9.7", ">=3.9"))
    assert ranged is not None
    assert ranged.python == "3.8.1", "a range does not tell which: the one that logged it does"


def test_packages_of_conda_are_refused_by_name() -> None:
    conda = "dependencies: [python=3.9.7, 'conda-forge::cudatoolkit=11.8', libgomp, {pip: [mlflow]}]"
    with pytest.raises(InvalidInput) as refused:
        read(conda__yaml=conda)
    assert "cudatoolkit=11.8, libgomp" in str(refused.value)
    assert "--env-manager local" in refused.value.hint


def test_requirements_and_the_python_of_the_model_are_enough() -> None:
    found = read(MLmodel=MLMODEL, requirements__txt="mlflow\nnumpy")
    assert found == Recipe("3.11.7", ("mlflow", "numpy"), build=("setuptools<81",))


def test_a_setuptools_of_any_version_is_one_that_old_mlflows_start_with() -> None:
    unpinned = PYTHON_ENV.replace("setuptools==65.5.0", "setuptools")
    found = read(MLmodel=MLMODEL, python_env__yaml=unpinned, requirements__txt="mlflow==2.9.2")
    assert found is not None
    assert found.build == ("wheel", "setuptools<81")


def test_no_files_no_recipe() -> None:
    assert read(MLmodel=MLMODEL) is None
    assert read() is None


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"python_env.yaml": "python: ["}, "is not YAML"),
        ({"python_env.yaml": "dependencies: [numpy]"}, "which Python"),
        ({"python_env.yaml": "python: 3.10.1\ndependencies: {a: 1}"}, "not a list of texts"),
        ({"python_env.yaml": PYTHON_ENV}, "names `requirements.txt`, which is not in"),
        ({"python_env.yaml": PYTHON_ENV, "requirements.txt": "-r requirements.txt"}, "circle"),
    ],
)
def test_what_cannot_be_understood_is_named(files: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        recipe_of(files.get)
    assert refused.value.hint


def test_files_that_name_files_are_read_and_constraints_stay_apart() -> None:
    found = read(
        MLmodel=MLMODEL,
        python_env__yaml=PYTHON_ENV,
        requirements__txt="--index-url https://example.org/simple\nmlflow\n-c constraints.txt\n-rmore.txt",
        constraints__txt="numpy<2\n",
        more__txt="pandas \\\n  ==2.2.0\n",
    )
    assert found is not None
    assert found.requirements == ("--index-url https://example.org/simple", "mlflow", "pandas    ==2.2.0")
    assert found.constraints == ("numpy<2",)


# the key


@given(st.lists(PINS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_spelling_and_repetition_do_not_count(pins: list[str], chance: object) -> None:
    def spelled(pin: str) -> str:
        return pin.replace("-", "_").upper().replace("==", " == ")

    other = [*map(spelled, pins), pins[0]]
    chance.shuffle(other)  # type: ignore[attr-defined]
    one = Recipe("3.11.7", tuple(pins), constraints=tuple(pins[:1]))
    two = Recipe("3.11.7", tuple(other), constraints=tuple(map(spelled, pins[:1])))
    assert key_of(one, "r", "d") == key_of(two, "r", "d")


@given(st.lists(PINS, max_size=4, unique=True), PINS)
def test_each_part_of_the_content_counts(pins: list[str], more: str) -> None:
    recipe = Recipe("3.11.7", tuple(pins))
    others = [
        replace(recipe, python="3.11.8"),
        replace(recipe, requirements=(*pins, f"{more}.99")),
        replace(recipe, constraints=(more,)),
        replace(recipe, build=("setuptools==60",)),
    ]
    keys = [key_of(each, "r", "d") for each in (recipe, *others)] + [key_of(recipe, "other", "d")]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 24 for key in keys)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("wheels/mine-1.0-py3-none-any.whl", True),
        ("./code", True),
        ("-e ./code", True),
        ("--find-links=wheels", True),
        ("mine @ file:./mine", True),
        ("mine @ https://example.org/mine.whl", False),
        ("git+https://example.org/mine.git", False),
        ("--find-links https://example.org/", False),
        ("--index-url https://example.org/simple", False),
        ("numpy==2.0", False),
    ],
)
def test_the_models_files_count_only_where_a_requirement_is_among_them(line: str, counts: bool) -> None:
    recipe = Recipe("3.11.7", (line,))
    assert (key_of(recipe, "r", "d") != key_of(recipe, "r", "e")) == counts
