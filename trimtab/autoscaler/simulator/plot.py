"""A picture of a simulation: a column per policy; pods, queue and late requests below one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trimtab.autoscaler.simulator.timeline import EACH_S, Timeline
from trimtab.core.errors import Failed, InvalidInput

FORMATS = (".png", ".svg", ".pdf")
COLUMN_INCHES, HEIGHT_INCHES = 5.0, 8.0
MINUTE_S = 60.0
QUEUE_LINEAR_MAX = 10.0  # above, the axis is logarithmic: queues of 5 and of 50,000 are both seen


def check_plot(path: str) -> None:
    """Raise InvalidInput if no picture can be written there: better known before a simulation than after."""
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        message = f"`{path}` is no known kind of picture"
        raise InvalidInput(message, where="--plot", hint=f"end its name with {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise InvalidInput(f"there is no folder {file.parent}", where="--plot", hint="make it first")
    there = file.exists()
    try:
        open(path, "ab").close()  # noqa: PTH123 -- as it is written: a Path would drop a slash at the end
    except OSError as error:
        hint = "name a file in a folder that you may write to"
        raise InvalidInput(f"cannot be written: {error}", where="--plot", hint=hint) from error
    if not there:
        file.unlink()


def plot(path: str, timelines: Sequence[Timeline], warmup_s: float = 0.0) -> None:
    """Draw the policies' lines (one or more), all on the same scales. The suffix says png, svg or pdf.

    Raises InvalidInput for another suffix, Failed if the file cannot be written.
    """
    check_plot(path)
    columns = len(timelines)
    figure = Figure(figsize=(COLUMN_INCHES * max(2, columns), HEIGHT_INCHES), layout="constrained")
    axes = figure.subplots(3, columns, sharex=True, sharey="row", squeeze=False)
    for index, timeline in enumerate(timelines):
        pods, queue, late = axes[:, index]
        pods.set_title(timeline.policy)
        _draw_pods(pods, timeline)
        _draw_queue(queue, timeline)
        _draw_late(late, timeline, warmup_s)
        late.set_xlabel("minutes")
        for panel in (pods, queue, late):
            panel.axvspan(0.0, warmup_s / MINUTE_S, color="0.92", lw=0, zorder=0)
            panel.margins(x=0)
    for panel, name in zip(axes[:, 0], ("pods", "queued requests", "late requests/s"), strict=True):
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)  # last: it fixes the top as well, for all columns
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        hint = "check that the folder may be written and the disk is not full"
        raise Failed(f"cannot be written: {error}", where=path, hint=hint) from error


def _draw_pods(panel: Axes, timeline: Timeline) -> None:
    """Demand as an area, capacity as steps over it."""
    minutes = timeline.at_s / MINUTE_S
    panel.fill_between(minutes, timeline.offered_pods, color="tab:blue", alpha=0.35, lw=0, label="demand")
    panel.step(
        minutes, timeline.ready_pods, color="black", lw=1.0, where="post", zorder=3, label="capacity (ready)"
    )
    panel.step(minutes, timeline.asked_pods, color="tab:orange", lw=2.0, where="post", label="asked for")


def _draw_queue(panel: Axes, timeline: Timeline) -> None:
    panel.fill_between(timeline.at_s / MINUTE_S, timeline.queued, color="tab:purple", lw=0.5)
    panel.set_yscale("symlog", linthresh=QUEUE_LINEAR_MAX)


def _draw_late(panel: Axes, timeline: Timeline, warmup_s: float) -> None:
    """Late requests by when they arrived; their number after the warm-up in words."""
    minutes, late_per_s = timeline.at_s / MINUTE_S, timeline.late / EACH_S
    panel.fill_between(minutes, late_per_s, color="tab:red", step="pre", lw=0.5)
    scored = f"{np.sum(timeline.late[timeline.at_s > warmup_s]):.0f} late"
    panel.text(0.99, 0.95, scored, transform=panel.transAxes, ha="right", va="top")
