"""What each kind of event does to a simulation. Amounts are drawn when it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trimtab.core.spec import ConcurrencyRange

if TYPE_CHECKING:
    from tests.autoscaler.faults.simulation import Simulation


def happen(simulation: Simulation, kind: str) -> None:
    """Let one event happen now."""
    _DOES[kind](simulation)


def _mute(s: Simulation) -> None:
    world = s.world
    world.rng.choice(world.envoys).mute_until_s = world.now_s + world.rng.choice((4, 15, 40, 200))


def _outage(s: Simulation) -> None:
    until_s = s.world.now_s + s.world.rng.choice((30, 150, 700))
    for envoy in s.world.envoys:
        envoy.mute_until_s = until_s


def _replace_envoy(s: Simulation) -> None:
    s.world.envoys.remove(s.world.rng.choice(s.world.envoys))
    s.world.add_envoy()


def _remove_envoy(s: Simulation) -> None:
    if len(s.world.envoys) > 1:
        s.world.envoys.remove(s.world.rng.choice(s.world.envoys))


def _pause(s: Simulation) -> None:
    s.paused_until_s = s.world.now_s + s.world.rng.choice((7, 20, 60, 180, 400))
    s.world.kept_in_socket = s.world.rng.random() < 0.3


def _restart(s: Simulation) -> None:
    s.restart()
    s.paused_until_s = s.world.now_s + s.world.rng.choice((0, 2, 20))


def _die(s: Simulation) -> None:
    s.world.fleet.die(s.world.rng.randint(1, max(1, s.world.fleet.ready)))


def _failing_starts(s: Simulation) -> None:
    s.world.fleet.failing_until_s = s.world.now_s + s.world.rng.randint(10, 150)


def _stalling_starts(s: Simulation) -> None:
    s.world.fleet.stalling_until_s = s.world.now_s + s.world.rng.randint(10, 150)


def _hang(s: Simulation) -> None:
    s.world.fleet.hung = s.world.rng.randint(0, s.world.fleet.ready)


def _slow(s: Simulation) -> None:
    s.world.traffic.slow = s.world.rng.choice((1.0, 1.0, 2.0, 5.0))


def _machine(s: Simulation) -> None:
    rng = s.world.rng
    s.world.fleet.shrink(rng.choice((1, 3, 10, 40, 300)), with_pods=rng.random() < 0.5)


def _range(s: Simulation) -> None:
    rng, target = s.world.rng, s.world.settings.target
    low = rng.choice((0, 1, target, 5 * target))
    s.world.set(range=ConcurrencyRange(low, max(low, rng.choice((1, 10, 100)) * target)))
    s.next_s = s.world.now_s


def _ceiling(s: Simulation) -> None:
    s.world.set(max_pods=s.world.rng.choice((0, 0, 1, 5, 40)))
    s.next_s = s.world.now_s


def _target(s: Simulation) -> None:
    """As the vertical axis moves: by a part, at most to the double."""
    s.world.set(target=_changed(s, 0.5, 0.8, 1.25, 2.0))


def _roll_out(s: Simulation) -> None:
    """The new model may bear many more requests at once than the old one, or a few."""
    s.roll_out(_changed(s, 0.25, 0.5, 1.0, 1.0, 4.0))


def _changed(s: Simulation, *factors: float) -> int:
    return max(1, round(s.world.settings.target * s.world.rng.choice(factors)))


def _hasty(s: Simulation) -> None:
    s.next_s = s.world.now_s


_DOES: dict[str, Callable[[Simulation], None]] = {
    "mute": _mute,
    "outage": _outage,
    "replace envoy": _replace_envoy,
    "add envoy": lambda s: s.world.add_envoy(),
    "remove envoy": _remove_envoy,
    "pause": _pause,
    "restart": _restart,
    "die": _die,
    "failing starts": _failing_starts,
    "stalling starts": _stalling_starts,
    "hang": _hang,
    "slow": _slow,
    "machine": _machine,
    "range": _range,
    "ceiling": _ceiling,
    "target": _target,
    "rollout": _roll_out,
    "hasty": _hasty,
}
