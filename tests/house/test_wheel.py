"""What is handed out: the wheel, built through the sdist, holds every room and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).parent / "ruff"
LINKS = ("autoscaler", "envoy", "runtime", "xds")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert len(list(out.glob("*.tar.gz"))) == 1, "built through an sdist"
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_package_and_its_files_are_in_the_wheel(names: set[str]) -> None:
    files = (path for path in (ROOT / "trimtab").rglob("*") if path.is_file())
    expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert len({name.split("/")[1] for name in expected}) > 10
    assert expected - names == set()


def test_generated_code_and_the_type_marker_are_in_the_wheel(names: set[str]) -> None:
    assert {"trimtab/v1/control_pb2.py", "trimtab/v1/control_pb2_grpc.py", "trimtab/py.typed"} <= names


def test_the_wheel_carries_that_of_the_runtime(names: set[str]) -> None:
    """What goes into models' environments comes with us: no index is asked for it."""
    carried = [name for name in names if name.startswith("trimtab/environment/carried/")]
    assert carried == ["trimtab/environment/carried/trimtab_runtime-0.1.0-py3-none-any.whl"]


def test_only_the_package_is_in_the_wheel(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"trimtab"}


def test_the_wheel_gives_the_command(names: set[str]) -> None:
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)


@pytest.mark.parametrize("link", LINKS)
def test_the_links_lead_into_the_package(link: str) -> None:
    assert (ROOT / link).is_symlink()
    assert (ROOT / link).resolve() == ROOT / "trimtab" / link


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("form", ["import {}", "from {} import x", "import {}.x"])
def test_ruff_catches_an_import_through_a_link(link: str, form: str) -> None:
    assert "TID251" in ruff(f"{form.format(link)}\n")


@pytest.mark.parametrize("link", LINKS)
def test_ruff_lets_the_package_import_itself(link: str) -> None:
    assert "TID251" not in ruff(f"import trimtab.{link}\nfrom trimtab import {link}\n")


def ruff(source: str) -> str:
    result = subprocess.run(
        [
            str(Path(sys.executable).parent / "ruff"),
            "check",
            "--no-cache",
            "--stdin-filename",
            "trimtab/planted.py",
            "-",
        ],
        cwd=ROOT,
        input=source,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return result.stdout
