"""Pages of DCGM exporters, and whose GPUs they tell of."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.signals.dcgm import Device, Gpu, merged, read_gpus
from trimtab.control.signals.gpus import gpu_signals, named_gpus
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal

MIB = 2**20
A, B, C = (f"GPU-{letter * 8}-1111-2222-3333-444444444444" for letter in "abc")
KEY = RevisionKey(EndpointName("default", "llm"), 1)
Pages = Callable[[str], str]


def pod(pod_id: str, *gpus: str) -> Pod:
    return Pod(pod_id, KEY, PodPhase.READY, "127.0.0.1", 1, 1, 0.0, gpus=gpus)


def gpus_of(text: str) -> tuple[Gpu, ...]:
    found = read_gpus(text)
    assert found is not None
    return found


def signal_of(text: str, *gpus: str) -> GpuSignal | None:
    return gpu_signals(gpus_of(text), [pod("x", *gpus)]).get("x")


def test_one_gpu_by_its_index(page: Pages) -> None:
    assert signal_of(page("dcgm_local"), "0") == GpuSignal(
        utilisation=0.97,
        engine_active=0.934,
        memory_used_bytes=51_000 * MIB,
        memory_free_bytes=30_000 * MIB,
        memory_bandwidth=0.61,
        fp16_active=0.05,
        tensor_active=0.412,
    )


def test_several_gpus_have_the_mean_of_shares_and_the_sum_of_bytes(page: Pages) -> None:
    found = signal_of(page("dcgm_local"), "0", "1")
    assert found is not None
    assert found.utilisation == pytest.approx((0.97 + 0.40) / 2)
    assert found.engine_active == pytest.approx((0.934 + 0.38) / 2)
    assert found.memory_used_bytes == (51_000 + 21_000) * MIB
    assert found.pods == 1


@pytest.mark.parametrize("name", [B, B[:12], "1"])
def test_a_gpu_is_named_by_index_uuid_or_the_beginning_of_it(page: Pages, name: str) -> None:
    (found,) = named_gpus(gpus_of(page("dcgm_local")), [name]) or ()
    assert found.device == Device(B)


@pytest.mark.parametrize("names", [["7"], ["0", "7"], ["GPU-"], ["GPU-ffff"], ["MIG-aaaa"], ["junk"], [""]])
def test_what_is_not_one_known_device_makes_the_pod_unknown(page: Pages, names: list[str]) -> None:
    assert named_gpus(gpus_of(page("dcgm_local")), names) is None
    assert signal_of(page("dcgm_local"), *names) is None


def test_names_after_a_negative_one_do_not_count(page: Pages) -> None:
    gpus = gpus_of(page("dcgm_local"))
    assert named_gpus(gpus, ["-1"]) == ()
    assert [gpu.index for gpu in named_gpus(gpus, ["2", "-1", "0"]) or ()] == ["2"]
    assert [gpu.index for gpu in named_gpus(gpus, ["2", "2"]) or ()] == ["2"], "twice is once"
    assert signal_of(page("dcgm_local"), "-1") is None


def test_an_index_tells_nothing_where_cuda_counts_otherwise_or_two_machines_have_it(page: Pages) -> None:
    mixed = page("dcgm_local").replace(f'UUID="{C}"', f'UUID="{C}",mixed=""', 1)
    mixed = "\n".join(
        line.replace("A100-SXM4-80GB", "L4") if C in line else line for line in mixed.splitlines()
    )
    assert named_gpus(gpus_of(mixed), ["0"]) is None
    assert named_gpus(gpus_of(mixed), [A]) is not None
    elsewhere = gpus_of(page("dcgm_local").replace("GPU-", "GPU-f"))
    both = merged([gpus_of(page("dcgm_local")), elsewhere])
    assert len(both) == 6
    assert named_gpus(both, ["0"]) is None
    assert named_gpus(both, [A]) is not None


def test_two_exporters_of_one_gpu_are_one(page: Pages) -> None:
    gpus = gpus_of(page("dcgm_local"))
    assert merged([gpus, gpus]) == gpus


def test_a_gpu_that_several_local_pods_name_is_shared(page: Pages) -> None:
    pods = [pod("a", "0"), pod("b", A), pod("c", "1", "0"), pod("d", "2"), pod("cpu")]
    found = gpu_signals(gpus_of(page("dcgm_local")), pods)
    assert {pod_id: signal.pods for pod_id, signal in found.items()} == {"a": 3, "b": 3, "c": 3, "d": 1}


def test_pods_of_kubernetes_are_known_by_their_labels(page: Pages) -> None:
    pods = [pod("llm.default-r1-aaaaa"), pod("iris.default-r2-bbbbb"), pod("iris.default-r2-zzzzz")]
    found = gpu_signals(gpus_of(page("dcgm_kubernetes")), pods)
    assert set(found) == {"llm.default-r1-aaaaa", "iris.default-r2-bbbbb"}
    two, shared = found["llm.default-r1-aaaaa"], found["iris.default-r2-bbbbb"]
    assert two.utilisation == pytest.approx(0.92)
    assert two.memory_used_bytes == 92_000 * MIB
    assert two.pods == 1
    assert shared == GpuSignal(0.55, 0.5, 11_000 * MIB, 70_000 * MIB, pods=2), "the rest is not told"


@pytest.mark.parametrize(
    ("new", "old"), [("exported_pod", "exported_namespace"), ("pod_name", "pod_namespace")]
)
def test_other_names_of_the_labels(page: Pages, new: str, old: str) -> None:
    text = page("dcgm_kubernetes").replace('namespace="default"', f'{old}="default"')
    extra = ',pod="dcgm-exporter-x7x7x",namespace="gpu-operator"' if new == "exported_pod" else ""
    text = text.replace(',pod="', f'{extra},{new}="')
    assert "llm.default-r1-aaaaa" in gpu_signals(gpus_of(text), [pod("llm.default-r1-aaaaa")])
    assert not gpu_signals(gpus_of(text), [pod("dcgm-exporter-x7x7x")])


def test_pods_of_one_name_in_two_namespaces_are_two(page: Pages) -> None:
    text = page("dcgm_kubernetes").replace("llm.default-r1-aaaaa", "llm-r1-x")
    found = gpu_signals(gpus_of(text), [pod("default/llm-r1-x"), pod("other/llm-r1-x")])
    assert set(found) == {"default/llm-r1-x"}


def test_a_slice_is_its_own_pods_and_has_no_utilisation(page: Pages) -> None:
    """DCGM tells a utilisation of 0 for slices, however busy."""
    pods = [pod("llm.default-r1-aaaaa"), pod("iris.default-r2-bbbbb")]
    found = gpu_signals(gpus_of(page("dcgm_mig")), pods)
    assert found["llm.default-r1-aaaaa"] == GpuSignal(
        None, 0.99, 30_000 * MIB, 10_000 * MIB, memory_bandwidth=0.7, fp16_active=0.02, tensor_active=0.5
    )
    assert found["iris.default-r2-bbbbb"].memory_used_bytes == 700 * MIB
    assert found["iris.default-r2-bbbbb"].pods == 1


def test_slices_of_local_pods(page: Pages) -> None:
    gpus = gpus_of(page("dcgm_mig"))
    (found,) = named_gpus(gpus, [f"MIG-{A}/9/0"]) or ()
    assert found.device == Device(A, "9")
    for name in ("0", A, f"MIG-{A}/3/0", "MIG-2b3c4d5e-0000-1111-2222-333333333333"):
        assert named_gpus(gpus, [name]) is None, "which slice is not known"
    own = gpus_of('DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="MIG-2b3c4d5e-0000",GPU_I_ID="9"} 0.5\n')
    assert named_gpus(own, ["MIG-2b3c4d5e-0000"]) is not None, "an exporter that tells a slice's own UUID"


def test_marks_for_no_value_are_unknown(page: Pages) -> None:
    (gpu,) = gpus_of(page("dcgm_blank"))
    assert gpu.figures == {"memory_bandwidth": 1.0}, "1.02 is 1; the rest are DCGM's marks, NaN and -1"
    assert signal_of(page("dcgm_blank"), "0") == GpuSignal(memory_bandwidth=1.0)


def test_a_figure_that_one_of_two_gpus_lacks_is_unknown(page: Pages) -> None:
    text = "\n".join(
        line for line in page("dcgm_local").splitlines() if not ("FB_USED" in line and B in line)
    )
    found = signal_of(text, "0", "1")
    assert found is not None
    assert found.memory_used_bytes is None
    assert found.memory_free_bytes == 90_000 * MIB


def test_a_page_without_a_gpu_and_one_that_cannot_be_read() -> None:
    assert read_gpus("") == ()
    assert read_gpus("DCGM_FI_DEV_GPU_UTIL 5\n") == (), "of which GPU?"
    assert read_gpus("DCGM_FI_DEV_GPU_UTIL{ 5\n") is None


@given(name=st.sampled_from(["dcgm_local", "dcgm_kubernetes", "dcgm_mig"]), data=st.data())
def test_order_and_losses_never_make_up_a_figure(page: Pages, name: str, data: st.DataObject) -> None:
    lines = page(name).splitlines()
    kept = data.draw(st.lists(st.sampled_from(lines), max_size=2 * len(lines)))
    random.Random(data.draw(st.integers())).shuffle(kept)
    whole = {gpu.device: gpu for gpu in gpus_of(page(name))}
    for gpu in gpus_of("\n".join(kept)):
        assert gpu.figures.items() <= whole[gpu.device].figures.items()
        assert gpu.pods <= whole[gpu.device].pods
