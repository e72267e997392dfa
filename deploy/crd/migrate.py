"""Store every object of a CustomResourceDefinition in its newest version, and forget the older ones.

python -m deploy.crd.migrate [NAME] [--kubeconfig FILE] [--context NAME]

The API server goes on storing an object in the version in which it was written last. Before a definition may
drop a version, each object must have been written once since another version became the one that is
stored, and `status.storedVersions` must name that one alone. This does both. It may be stopped and begun anew
at any time, and nobody who reads or writes notices.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator

import orjson

from deploy.crd.generate import GROUP, PLURAL
from trimtab.core.errors import Conflict, NotFound, TrimtabError
from trimtab.kube import Api, Json, Resource

CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
PAGE = 100  # objects that are read at a time
TRIES = 20  # of one object that others write all the time


async def migrate(api: Api, name: str) -> int:
    """How many objects were written. Raises NotFound, Conflict, Unauthorised, Unreachable or Failed."""
    path = CRDS.path(name=name)
    spec = orjson.loads(await api.get(path))["spec"]
    (stored,) = (version["name"] for version in spec["versions"] if version["storage"])
    resource = Resource(f"{spec['group']}/{stored}", spec["names"]["plural"])
    written = 0
    async for found in _each(api, resource):
        written += await _write(api, resource, found["metadata"]["namespace"], found["metadata"]["name"])
    now = orjson.loads(await api.get(path))
    if [version["name"] for version in now["spec"]["versions"] if version["storage"]] != [stored]:
        raise Conflict(f"{name} was changed meanwhile", where="spec.versions", hint="run this once more")
    now["status"]["storedVersions"] = [stored]
    await api.replace(f"{path}/status", now)
    return written


async def _each(api: Api, resource: Resource) -> AsyncIterator[Json]:
    query = {"limit": str(PAGE)}
    while True:
        page = orjson.loads(await api.get(resource.path(), query))
        for found in page["items"]:
            yield found
        if not page["metadata"].get("continue"):
            return
        query["continue"] = page["metadata"]["continue"]


async def _write(api: Api, resource: Resource, namespace: str, name: str) -> bool:
    """Write one as it is; one that is gone meanwhile needs it no more."""
    path = resource.path(namespace, name)
    for _ in range(TRIES):
        try:
            await api.replace(path, orjson.loads(await api.get(path)))
        except NotFound:
            return False
        except Conflict:
            continue  # somebody wrote it in between: so it is stored anew already, or will be by the next try
        return True
    hint = "see who writes it: `kubectl get --show-managed-fields`; then run this once more"
    raise Conflict(f"{namespace}/{name} changes all the time", where=path, hint=hint)


async def _main(asked: argparse.Namespace) -> None:
    api = await Api.connect("trimtab-migration", asked.kubeconfig, asked.context)
    try:
        written = await migrate(api, asked.name)
    finally:
        await api.close()
    sys.stdout.write(f"{asked.name}: {written} objects are stored in the newest version, and in no other\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", nargs="?", default=f"{PLURAL}.{GROUP}")
    parser.add_argument("--kubeconfig")
    parser.add_argument("--context")
    try:
        asyncio.run(_main(parser.parse_args()))
    except TrimtabError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
