"""Pages of NVIDIA's DCGM exporter: what each GPU, or each slice of one (MIG), does; and for which pods.

A sample names its GPU by `gpu` (an index) and `UUID`; of a slice also by `GPU_I_ID`, with the whole GPU's
UUID. Where the exporter knows of Kubernetes it names the pod; a GPU shared in time is told once for each
pod, with the same figures (`--kubernetes-virtual-gpus`), or for one of them only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trimtab.control.signals.page import Sample, read_page

UTILISATION = "DCGM_FI_DEV_GPU_UTIL"
FIGURES: Mapping[str, tuple[str, float, float]] = {
    UTILISATION: ("utilisation", 0.01, 1.0),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("engine_active", 1.0, 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", 2.0**20, 2.0**50),
    "DCGM_FI_DEV_FB_FREE": ("memory_free_bytes", 2.0**20, 2.0**50),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("memory_bandwidth", 1.0, 1.0),
    "DCGM_FI_PROF_PIPE_FP16_ACTIVE": ("fp16_active", 1.0, 1.0),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_active", 1.0, 1.0),
}
"""Each field's place in a GpuSignal, its unit there, and the most that it can be.

DCGM's marks for "no value" are all far above: 0x7ffffff0 MiB is 2^51 bytes, the others are larger still.
"""

SHARE_SLACK = 0.05
"""Profiled shares come out a little over 1, as counters of two units are read one after the other."""

_POD_LABELS = ("exported_pod", "pod", "pod_name")
_NAMESPACE_LABELS = ("exported_namespace", "namespace", "pod_namespace")


@dataclass(frozen=True)
class Device:
    """A GPU, or one slice of it, whose number is `slice_id`; "" is a whole one."""

    uuid: str
    slice_id: str = ""


@dataclass(frozen=True)
class Gpu:
    """One device as its exporter sees it. `pods` are (namespace, name) of those that the exporter names."""

    device: Device
    index: str
    model: str
    figures: Mapping[str, float]  # fields of a GpuSignal; what is not there is unknown
    pods: frozenset[tuple[str, str]] = frozenset()


def read_gpus(text: str) -> tuple[Gpu, ...] | None:
    """The devices on an exporter's page; None if it cannot be read."""
    page = read_page(text, frozenset(FIGURES))
    if page is None:
        return None
    labels: dict[Device, Mapping[str, str]] = {}
    figures: dict[Device, dict[str, float]] = defaultdict(dict)
    pods: dict[Device, set[tuple[str, str]]] = defaultdict(set)
    for name, samples in page.samples.items():
        for sample in samples:
            device = Device(sample.labels.get("UUID", ""), sample.labels.get("GPU_I_ID", ""))
            if not device.uuid:
                continue
            labels[device] = sample.labels
            pods[device] |= _pod_named(sample.labels)
            figures[device] |= _figure(name, sample, device)
    return tuple(
        Gpu(device, told.get("gpu", ""), told.get("modelName", ""), figures[device], frozenset(pods[device]))
        for device, told in labels.items()
    )


def merged(pages: Iterable[tuple[Gpu, ...]]) -> tuple[Gpu, ...]:
    """The devices of several exporters; one that two of them watch is taken from the later."""
    return tuple({gpu.device: gpu for gpus in pages for gpu in gpus}.values())


def _figure(name: str, sample: Sample, device: Device) -> dict[str, float]:
    """DCGM has no utilisation of slices, and tells 0 for busy ones: that is unknown."""
    field, unit, most = FIGURES[name]
    if sample.value is None or (name == UTILISATION and device.slice_id):
        return {}
    value = sample.value * unit
    return {field: min(value, most)} if value <= most * (1 + SHARE_SLACK) else {}


def _pod_named(labels: Mapping[str, str]) -> set[tuple[str, str]]:
    """The pod that uses the device. Where there is an `exported_pod`, `pod` is the exporter's own."""
    for pod_label, namespace_label in zip(_POD_LABELS, _NAMESPACE_LABELS, strict=True):
        if pod_label in labels:
            pod = labels[pod_label]
            return {(labels.get(namespace_label, ""), pod)} if pod else set()
    return set()
