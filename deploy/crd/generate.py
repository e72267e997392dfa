"""Generate the CustomResourceDefinition of ServingEndpoint from the control API's own messages.

python -m deploy.crd.generate           writes deploy/crd/servingendpoints.yaml
python -m deploy.crd.generate --check   compares instead; exit status 1 if what is there is stale
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.crd import rules
from deploy.crd.comments import read_comments
from deploy.crd.schema import schema_of
from trimtab.v1 import control_pb2 as v1

FILE = Path(__file__).parent / "servingendpoints.yaml"
HEAD = "# Written by `make crd` from proto/ and deploy/crd/rules.py; never edited.\n"
GROUP = "serving.trimtab.dev"
PLURAL = "servingendpoints"

Json = dict[str, Any]


def definition() -> Json:
    """The CustomResourceDefinition. Raises RuntimeError if protoc refuses proto/."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": "ServingEndpoint",
                "listKind": "ServingEndpointList",
                "plural": PLURAL,
                "singular": "servingendpoint",
                "shortNames": ["sep"],
            },
            "scope": "Namespaced",
            "versions": [_version()],
        },
    }


def _version() -> Json:
    return {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} for name, kind, path in rules.COLUMNS
        ],
        "schema": {"openAPIV3Schema": _schema()},
    }


def _schema() -> Json:
    said = read_comments()
    spec = schema_of(v1.Spec.DESCRIPTOR, said, rules.SPEC)
    status = schema_of(v1.Status.DESCRIPTOR, said, rules.STATUS)
    status["properties"] |= rules.STATUS_MORE
    return {
        "type": "object",
        "description": "A model that is served, and the range of concurrent requests it has to bear.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec | {"description": "What is wanted."},
            "status": status | {"description": "What is, as the control plane saw it last."},
        },
        "x-kubernetes-validations": rules.WHOLE,
    }


def text() -> str:
    """The file's content."""
    return HEAD + yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether it is stale")
    if not parser.parse_args().check:
        FILE.write_text(text())
        return 0
    if FILE.exists() and FILE.read_text() == text():
        return 0
    sys.stderr.write(f"error: {FILE} is not what proto/ and deploy/crd/rules.py give\nhint: make crd\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
