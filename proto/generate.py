"""Generate the Python code of the control API, and of Envoy's statistics, from proto/.

python proto/generate.py           writes trimtab/v1 and trimtab/envoy/metrics_pb2*
python proto/generate.py --check   compares instead; exit status 1 if what is there is stale
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
ROOT = PROTO.parent
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(source: Path, out: Path) -> None:
    """Write the modules of every .proto under `source` below `out`. Raises RuntimeError if protoc refuses."""
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
        for name in ("mypy", "mypy_grpc")
    ]
    served = [name for name in files if re.search("^service ", (source / name).read_text(), re.MULTILINE)]
    for names, kinds in ((files, ("python", "mypy")), (served, ("grpc_python", "mypy_grpc"))):
        outputs = [f"--{kind}_out={out}" for kind in kinds]
        command = ["protoc", f"-I{source}", f"-I{WELL_KNOWN}", *plugins, *outputs, *names]
        status = protoc.main(command) if names else 0
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status} over {source}")


def stale(source: Path, package_root: Path) -> list[str]:
    """Generated files below `package_root` that differ from `source`'s, are missing or left over."""
    with tempfile.TemporaryDirectory() as folder:
        generate(source, Path(folder))
        fresh = generated_files(Path(folder))
    present = generated_files(package_root)
    return sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))


def generated_files(root: Path) -> dict[str, bytes]:
    """Path relative to `root` → content, of every generated module."""
    found = (path for path in (root / "trimtab").rglob("*_pb2*") if path.name.endswith(SUFFIXES))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say what is stale")
    if not parser.parse_args().check:
        generate(PROTO, ROOT)
        return 0
    names = stale(PROTO, ROOT)
    for name in names:
        sys.stderr.write(f"error: {name} is not what proto/ gives\n")
    if names:
        sys.stderr.write("hint: make proto\n")
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
