"""Names of policies: what they make, and what is said of those that are wrong."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.simulator.policies.base import Wish
from trimtab.autoscaler.simulator.policies.catalog import PolicySpec, make, parse, parse_all
from trimtab.autoscaler.simulator.policies.hpa import Hpa
from trimtab.autoscaler.simulator.policies.keda import Keda
from trimtab.autoscaler.simulator.policies.knative import Knative
from trimtab.autoscaler.simulator.policies.ray import Ray
from trimtab.autoscaler.simulator.policies.reference import Clairvoyant, Fixed
from trimtab.core.errors import InvalidInput


def test_a_list_keeps_its_order_and_its_words_each_once() -> None:
    specs = parse_all("ours, kpa,kpa:target=0.5,fixed:12,clairvoyant,kpa")
    assert specs == (
        PolicySpec("ours", "ours", "ours"),
        PolicySpec("kpa", "kpa", "baseline"),
        PolicySpec("kpa:target=0.5", "kpa", "baseline", target=0.5),
        PolicySpec("fixed:12", "fixed", "reference", pods=12),
        PolicySpec("clairvoyant", "clairvoyant", "reference"),
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("kpa", Knative),
        ("hpa", Hpa),
        ("keda", Keda),
        ("ray", Ray),
        ("clairvoyant", Clairvoyant),
        ("fixed:3", Fixed),
    ],
)
def test_makes_what_was_asked_for(setting, text: str, kind: type) -> None:
    given = setting(offered=[1.0])
    first, second = make(parse(text), given), make(parse(text), given)
    assert type(first) is kind
    assert first is not second


def test_ours_is_made_too(setting) -> None:
    assert type(make(parse("ours"), setting())).__name__ == "Ours"


@pytest.mark.parametrize(("text", "pods"), [("kpa", 10), ("kpa:target=1", 7), ("kpa:target=0.35", 20)])
def test_the_option_is_a_share_of_the_knee(setting, tick, text: str, pods: int) -> None:
    policy = make(parse(text), setting(pods_max=50))
    wishes = [policy.step(tick(i / 2, in_flight=28.0, ready=12), ()) for i in range(1, 121)]
    assert wishes[-1] == Wish(pods, 4)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("kpaa", "unknown policy `kpaa`", "did you mean `kpa`?"),
        ("knative", "unknown policy `knative`", "did you mean `kpa`?"),
        ("KEDA", "unknown policy `KEDA`", "did you mean `keda`?"),
        ("clairvoyent", "unknown policy", "did you mean `clairvoyant`?"),
        ("xyz", "unknown policy `xyz`", "known: ours, kpa, hpa, keda, ray, clairvoyant, fixed:N"),
        ("", "unknown policy ``", "known: ours"),
        ("fixed:N", "`fixed:N` must name a number of pods", "fixed:12"),
        ("fixed", "must name a number of pods", "fixed:12"),
        ("fixed:0", "must name a number of pods", "fixed:12"),
        ("fixed:-3", "must name a number of pods", "fixed:12"),
        ("fixed:²", "must name a number of pods", "fixed:12"),
        ("fixed:999999999", "from 1 to 100000", "fixed:12"),
        ("kpa:targt=0.5", "kpa has no option `targt`", "did you mean `target`?"),
        ("kpa:window=3", "kpa has no option `window`", "kpa:target=0.5"),
        ("kpa:", "kpa has no option ``", "kpa:target=0.5"),
        ("hpa:target=", "target must be above 0", "hpa:target=0.5"),
        ("hpa:target=0", "target must be above 0", "hpa:target=0.5"),
        ("hpa:target=nan", "target must be above 0", "hpa:target=0.5"),
        ("hpa:target=inf", "target must be above 0", "hpa:target=0.5"),
        ("hpa:target=70%", "target must be above 0", "hpa:target=0.5"),
        ("ours:target=0.5", "ours takes no option", "write `ours`"),
        ("clairvoyant:5", "clairvoyant takes no option", "write `clairvoyant`"),
    ],
)
def test_says_what_was_wrong_and_what_to_write(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert caught.value.where == "--policy"
    assert message in caught.value.message
    assert hint in caught.value.hint
