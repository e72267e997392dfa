"""Which pod has which GPUs, and what they tell of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields

from trimtab.control.signals.dcgm import Device, Gpu
from trimtab.core.pod import Pod
from trimtab.core.signals import GpuSignal

_SUMMED = ("memory_used_bytes", "memory_free_bytes")
_SHARES = tuple(field.name for field in fields(GpuSignal) if field.name not in (*_SUMMED, "pods"))
_INDEX = re.compile(r"[0-9]{1,3}")
_SLICE = re.compile(r"MIG-(GPU-[^/]+)/([0-9]+)/[0-9]+")  # of drivers before 470: the GPU, its slice, a part


def gpu_signals(gpus: Sequence[Gpu], pods: Collection[Pod]) -> dict[str, GpuSignal]:
    """By pod id what is known of its GPUs; a pod is missing if any of those that it names is unknown.

    A pod that an exporter names has the devices that bear its name; any other those that its own
    CUDA_VISIBLE_DEVICES names.
    """
    labelled = _labelled(gpus)
    held = {pod.id: labelled.get(pod.id) or named_gpus(gpus, pod.gpus) or () for pod in pods}
    sharing = Counter(gpu.device for mine in held.values() for gpu in mine)
    return {pod_id: _signal(mine, sharing) for pod_id, mine in held.items() if mine}


def named_gpus(gpus: Sequence[Gpu], names: Sequence[str]) -> tuple[Gpu, ...] | None:
    """The devices that CUDA_VISIBLE_DEVICES names: by index, `GPU-UUID` (or its beginning), or `MIG-…`.

    As CUDA does, names after one that is not a device's (`-1`) do not count. None where one of them is
    not known for certain. An index is only where one exporter tells of it, for one model of GPU (of
    several CUDA counts the fastest first, DCGM by the bus), and never where the GPU is cut in slices.
    A slice's own UUID (`MIG-UUID`) is on no exporter's page unless as its UUID, so mostly unknown.
    """
    found: list[Gpu] = []
    for name in names:
        if name.startswith("-"):
            break
        matches = [gpu for gpu in gpus if _is_named(gpu, name)]
        if len({gpu.device for gpu in matches}) != 1 or (_INDEX.fullmatch(name) and not _one_model(gpus)):
            return None
        if not matches[0].device.slice_id and _sliced(gpus, matches[0].device.uuid):
            return None
        found += [matches[0]] if matches[0] not in found else []
    return tuple(found)


def _is_named(gpu: Gpu, name: str) -> bool:
    device = gpu.device
    if _INDEX.fullmatch(name):
        return gpu.index == name and not device.slice_id
    if part := _SLICE.fullmatch(name):
        return device == Device(part[1], part[2])
    if name.startswith("GPU-"):
        return device.uuid.startswith(name) and not device.slice_id
    return device.uuid == name and name.startswith("MIG-")


def _one_model(gpus: Sequence[Gpu]) -> bool:
    return len({gpu.model for gpu in gpus}) == 1


def _sliced(gpus: Sequence[Gpu], uuid: str) -> bool:
    return any(gpu.device.uuid == uuid and gpu.device.slice_id for gpu in gpus)


def _labelled(gpus: Sequence[Gpu]) -> dict[str, tuple[Gpu, ...]]:
    """By pod id those that an exporter says are the pod's: `NAMESPACE/NAME` on Kubernetes, else the name.

    Of a GPU cut in slices only the slices: its own figures are of all of them.
    """
    sliced = {gpu.device.uuid for gpu in gpus if gpu.device.slice_id}
    found: dict[str, tuple[Gpu, ...]] = {}
    for gpu in gpus:
        if gpu.device.slice_id or gpu.device.uuid not in sliced:
            for pod_id in {said for namespace, name in gpu.pods for said in (name, f"{namespace}/{name}")}:
                found[pod_id] = (*found.get(pod_id, ()), gpu)
    return found


def _signal(gpus: Sequence[Gpu], sharing: Counter[Device]) -> GpuSignal:
    """The mean of shares, the sum of bytes; a figure is unknown if it is so of one device."""
    known = {name: [gpu.figures.get(name) for gpu in gpus] for name in (*_SHARES, *_SUMMED)}
    totals = {name: None if None in values else sum(filter(None, values)) for name, values in known.items()}
    means = {name: total / len(gpus) for name in _SHARES if (total := totals[name]) is not None}
    sums = {name: totals[name] for name in _SUMMED}
    pods = max(max(sharing[gpu.device], len(gpu.pods)) for gpu in gpus)
    return GpuSignal(**means, **sums, pods=max(1, pods))
