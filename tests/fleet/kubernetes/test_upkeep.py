"""What stands around pods is made again, and not more often than that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from trimtab.core.errors import Conflict, Failed, NotFound, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import upkeep
from trimtab.fleet.kubernetes.attendants import ACCOUNTS, BUDGETS, POLICIES, Attendants, Callers
from trimtab.fleet.kubernetes.fleet import DEPLOYMENTS
from trimtab.fleet.kubernetes.seen import SeenDeployment, read_deployment
from trimtab.fleet.kubernetes.template import name_of
from trimtab.fleet.kubernetes.upkeep import Upkeep
from trimtab.kube import Json, Key, Mirror, Resource, Selection

IRIS = RevisionKey(EndpointName("team", "iris"), 1)
NEWER = RevisionKey(IRIS.endpoint, 2)
ROSE = RevisionKey(EndpointName("other", "rose"), 1)
KINDS = {resource.plural: resource for resource in (ACCOUNTS, POLICIES, BUDGETS)}


class Server:
    """Keeps such objects as the API server does, as far as they are asked for; lists them in pages."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, Key], Json] = {}
        self.lists = 0
        self.writes: list[str] = []
        self.refuses: Exception | None = None  # writes
        self.away = False
        self.webhook = False  # changes what is written

    async def get(self, path: str, query: Mapping[str, str], accept: str = "") -> bytes:
        if self.away:
            raise Unreachable("the API server does not answer")
        self.lists += 1
        resource, begin = KINDS[path.rpartition("/")[2]], int(query.get("continue", "0"))
        label = query["labelSelector"]
        found = [
            each
            for (kind, _), each in sorted(self.objects.items(), key=lambda item: item[0][1])
            if kind == resource and label in each["metadata"]["labels"]
        ]
        end = begin + int(query["limit"])
        metadata = {"continue": str(end)} if end < len(found) else {}
        return orjson.dumps({"metadata": metadata, "items": found[begin:end]})

    async def create(self, path: str, body: Json, query: Mapping[str, str] | None = None) -> bytes:
        place = KINDS[path.rpartition("/")[2]], (body["metadata"]["namespace"], body["metadata"]["name"])
        self._written(path)
        if place in self.objects:
            raise Conflict("is there")
        self.objects[place] = orjson.loads(orjson.dumps(body))
        return b"{}"

    async def merge(self, path: str, body: Json) -> bytes:
        *_, namespace, plural, name = path.split("/")
        self._written(path)
        found = self.objects.get((KINDS[plural], (namespace, name)))
        if found is None:
            raise NotFound("is not there")
        found["metadata"]["labels"] |= body["metadata"]["labels"]
        owners = {each["uid"]: each for each in found["metadata"].get("ownerReferences") or ()}
        owners |= {each["uid"]: each for each in body["metadata"]["ownerReferences"]}
        found["metadata"]["ownerReferences"] = list(owners.values())
        if "spec" in body:
            spec = dict(body["spec"])
            assert spec.pop("$patch") == "replace"
            found["spec"] = spec | ({"theirs": True} if self.webhook else {})
        return b"{}"

    def of(self, resource: Resource, namespace: str, name: str) -> Json:
        return self.objects[resource, (namespace, name)]

    def _written(self, path: str) -> None:
        self.writes.append(path)
        if self.refuses is not None:
            raise self.refuses


class Kept:
    """Three revisions of two endpoints, with all that stands around them."""

    def __init__(self) -> None:
        self.server = Server()
        api: Any = self.server
        self.deployments: Mirror[SeenDeployment] = Mirror(api, Selection(DEPLOYMENTS), read_deployment)
        self.attendants = Attendants(api, Callers())
        self.attended = {IRIS, NEWER, ROSE}
        for number, key in enumerate((IRIS, NEWER, ROSE)):
            place = key.endpoint.namespace, name_of(key)
            self.deployments.objects[place] = SeenDeployment(key, f"uid-{number}", "7", 1)
        self.upkeep = Upkeep(api, self.attendants, self.deployments, self.attended.__contains__, "")

    async def begin(self) -> None:
        for deployment in self.deployments.objects.values():
            await self.attendants.bind(deployment.key, deployment.uid)
        self.server.writes.clear()


@pytest.fixture
async def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(upkeep, "REST_S", 0.0)
    made = Kept()
    await made.begin()
    return made


async def test_at_rest_nothing_is_written(kept: Kept) -> None:
    await kept.upkeep.look()
    await kept.upkeep.look()
    assert kept.server.writes == []
    assert kept.server.lists == 2 * len(KINDS)


async def test_pages_are_followed_to_the_last(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PAGE", 1)
    await kept.upkeep.look()
    assert kept.server.writes == []
    assert kept.server.lists == 2 + 2 + 3, "two endpoints, three revisions"


@pytest.mark.parametrize(
    ("resource", "name"), [(ACCOUNTS, "trimtab-iris"), (POLICIES, "trimtab-iris"), (BUDGETS, "iris-r2")]
)
async def test_what_is_taken_away_is_made_anew(kept: Kept, resource: Resource, name: str) -> None:
    before = kept.server.objects.pop((resource, ("team", name)))
    await kept.upkeep.look()
    assert kept.server.of(resource, "team", name) == before
    assert all("/team/" in path for path in kept.server.writes), "others are let alone"


@pytest.mark.parametrize(
    ("resource", "name", "spec"),
    [
        (POLICIES, "trimtab-iris", {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}),
        (POLICIES, "trimtab-iris", None),
        (BUDGETS, "iris-r1", {"minAvailable": 1, "selector": {}}),
    ],
)
async def test_what_is_changed_is_as_before(kept: Kept, resource: Resource, name: str, spec: Any) -> None:
    found = kept.server.of(resource, "team", name)
    before, found["spec"] = found["spec"], spec
    found["metadata"]["labels"]["team"] = "theirs"
    found["metadata"]["annotations"] = {"theirs": "too"}
    await kept.upkeep.look()
    found = kept.server.of(resource, "team", name)
    assert found["spec"] == before
    assert found["metadata"]["labels"]["team"] == "theirs"
    assert found["metadata"]["annotations"] == {"theirs": "too"}


async def test_what_people_add_to_an_account_is_theirs(kept: Kept) -> None:
    """A cloud's identity, or secrets of a registry."""
    account = kept.server.of(ACCOUNTS, "team", "trimtab-iris")
    account |= {"imagePullSecrets": [{"name": "registry"}], "automountServiceAccountToken": True}
    account["metadata"]["annotations"] = {"eks.amazonaws.com/role-arn": "arn"}
    await kept.upkeep.look()
    assert kept.server.writes == []


async def test_a_policy_of_an_earlier_version_is_brought_up_to_date(kept: Kept) -> None:
    """It let in whatever was of the release."""
    api: Any = kept.server
    now = Attendants(api, Callers(labels={"app.kubernetes.io/component": "envoy"}))
    later = Upkeep(api, now, kept.deployments, kept.attended.__contains__, "")
    await later.look()
    for key in (IRIS, ROSE):
        policy = kept.server.of(POLICIES, key.endpoint.namespace, f"trimtab-{key.endpoint.name}")
        (who,) = policy["spec"]["ingress"][0]["from"]
        assert who["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "envoy"}
    kept.server.writes.clear()
    await later.look()
    assert kept.server.writes == []


async def test_a_label_or_an_owner_that_is_taken_off_is_put_on_again(kept: Kept) -> None:
    policy = kept.server.of(POLICIES, "team", "trimtab-iris")["metadata"]
    labels, owners = policy["labels"], policy["ownerReferences"]
    policy["labels"], policy["ownerReferences"] = {}, owners[:1]
    await kept.upkeep.look()
    assert (policy["labels"], policy["ownerReferences"]) == (labels, owners)
    policy["ownerReferences"] = owners[:1]
    await kept.upkeep.look()
    assert policy["ownerReferences"] == owners


async def test_what_was_never_complete_is_not_looked_at(kept: Kept) -> None:
    """Whoever makes the first of it is on the way."""
    kept.attended.clear()
    kept.server.objects.clear()
    await kept.upkeep.look()
    assert kept.server.writes == []


@pytest.mark.parametrize("now", [None, SeenDeployment(ROSE, "another", "9", 1)])
async def test_a_deployment_that_went_meanwhile_needs_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, now: SeenDeployment | None
) -> None:
    del kept.server.objects[BUDGETS, ("other", "rose-r1")]
    listed = kept.server.get

    async def get(path: str, query: Mapping[str, str], accept: str = "") -> bytes:
        kept.deployments.objects.pop(("other", "rose-r1"), None)
        if now is not None:
            kept.deployments.objects["other", "rose-r1"] = now
        return await listed(path, query, accept)

    monkeypatch.setattr(kept.server, "get", get)
    await kept.upkeep.look()
    assert kept.server.writes == []


async def test_who_changes_it_each_time_is_not_fought_for_ever(kept: Kept) -> None:
    kept.server.webhook = True
    kept.server.of(POLICIES, "other", "trimtab-rose")["spec"] = {}
    written = []
    for _ in range(200):
        kept.server.writes.clear()
        await kept.upkeep.look()
        written.append(bool(kept.server.writes))
    looks = [number for number, wrote in enumerate(written) if wrote]
    assert looks == [0, 1, 3, 7, 15, 31, 51, 71, 91, 111, 131, 151, 171, 191]
    kept.server.webhook = False
    for _ in range(upkeep.RESTS_MAX + 1):
        await kept.upkeep.look()
    kept.server.writes.clear()
    del kept.server.objects[POLICIES, ("other", "trimtab-rose")]
    await kept.upkeep.look()
    assert kept.server.writes, "it was as it should be since: that is over"


async def test_one_that_is_refused_holds_up_no_other(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    for place in ("team", "trimtab-iris"), ("other", "trimtab-rose"):
        del kept.server.objects[POLICIES, place]
    kept.server.refuses = Failed("is being terminated")
    await kept.upkeep.look()
    assert len(kept.server.writes) == 3, "each was tried"
    assert "the NetworkPolicy trimtab-rose was taken away, and that cannot be mended" in caplog.text


async def test_an_api_server_that_is_away_is_asked_once_a_look(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.server.objects.clear()
    kept.server.refuses = Unreachable("the API server does not answer")
    with pytest.raises(Unreachable):
        await kept.upkeep.look()
    assert len(kept.server.writes) == 1

    rests = iter((0.0, 0.0, 0.0))

    async def rest(_: float) -> None:
        next(rests)  # the fourth ends it

    kept.server.away = True
    monkeypatch.setattr(upkeep.asyncio, "sleep", rest)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="StopIteration"):
        await kept.upkeep.run()
    told = [each for each in caplog.messages if "could not be looked at" in each]
    assert len(told) == 1, "the same is told once"
