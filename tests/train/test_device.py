"""Which GPU a rank takes, and how many threads."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from bert_pretrain.config.device import DeviceConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.train import device
from tests import backends


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Says how many GPUs TensorFlow shows."""

    def show(count: int) -> None:
        shown = [f"GPU {number}" for number in range(count)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: shown)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": gpu})

    return show


@pytest.mark.parametrize(("visible", "local_rank", "gpu"), [(4, 0, 0), (4, 3, 3), (1, 3, 0)])
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one(gpus, visible: int, local_rank: int, gpu: int) -> None:
    gpus(visible)
    chosen = device.choose(DeviceConfig(), set(), local_rank)
    assert (chosen.name, chosen.gpu, chosen.compute_dtype) == (f"GPU {gpu}", gpu, tf.float16)
    assert device.session_config(DeviceConfig(), chosen.gpu).gpu_options.visible_device_list == str(gpu)


def test_more_ranks_than_gpus_are_refused(gpus) -> None:
    gpus(2)
    with pytest.raises(ValueError, match=r"shows 2 GPUs; start 2 ranks \(NP=2\)"):
        device.choose(DeviceConfig(), set(), local_rank=2)


def test_a_cpu_says_once_that_it_computes_in_float32(gpus) -> None:
    gpus(0)
    assert device.choose(DeviceConfig(), set()).notices == []
    (notice,) = device.choose(DeviceConfig(), {"amp"}).notices
    assert notice.startswith("--amp ignored: no GPU")
    (notice,) = device.choose(DeviceConfig(amp_dtype="float16"), {"amp_dtype"}).notices
    assert notice.startswith("--amp_dtype=float16 ignored: no GPU")
    (notice,) = device.choose(DeviceConfig(amp=False, amp_dtype="bfloat16"), {"amp_dtype"}).notices
    assert notice == "--amp_dtype has no effect with --noamp: products are in float32"


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))

    def threads(config: DeviceConfig, local_size: int) -> int:
        return device.session_config(config, 0, local_size).intra_op_parallelism_threads

    assert [threads(DeviceConfig(), ranks) for ranks in (1, 2, 16)] == [8, 4, 1]
    assert threads(DeviceConfig(intra_op_threads=3), 2) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 6})  # bound by the launcher
    assert threads(DeviceConfig(), 2) == 2


def test_an_explicit_use_xla_says_that_native_kernels_are_used_instead(gpus) -> None:
    gpus(0)
    backends.require(Backend.NATIVE)
    (notice,) = device.choose(DeviceConfig(), {"use_xla"}).notices
    assert notice.startswith("--use_xla has no effect") and "--nonative_kernels" in notice
    assert device.choose(DeviceConfig(native_kernels=False), {"use_xla"}).notices == []
    assert device.choose(DeviceConfig(use_xla=False), {"use_xla"}).notices == []


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_grappler_is_left_out_on_cpus(gpus, num_gpus: int) -> None:
    gpus(num_gpus)
    proto = device.session_config(DeviceConfig(), 0)
    assert proto.graph_options.rewrite_options.disable_meta_optimizer == (num_gpus == 0)
