"""Which dtype the products have: what a device offers, what ranks agree on, what a resumed run keeps; its rounding.

Which GPU a rank takes, and how many threads."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.config.training import DeviceConfig
from bert_pretrain.kernels import fused, native
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.dropout import Dropout
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import variables
from bert_pretrain.model.layers import Precision, dense
from bert_pretrain.tensorflow_compat import compat
from bert_pretrain.train import device, forward
from bert_pretrain.train.device import DtypeOffer
from tests import backends
from tests.distributed.test_agreement import OneOf
from tests.e2e import runs
from tests.train.small import MODEL, random_examples
from tests.train.test_train_step import gradient, relative_difference, row_batch

ASKED = DeviceConfig(amp_dtype="bfloat16")
BOTH, SLOW = DtypeOffer(("bfloat16", "float32")), DtypeOffer(("float32", "bfloat16"), "slow")
NEVER = DtypeOffer(("float32",), "old")


@pytest.mark.parametrize(
    ("settings", "capability", "dtypes"),
    [
        ({}, (7, 5), ["float16"]),
        ({}, (8, 0), ["bfloat16", "float16"]),
        ({}, (10, 0), ["bfloat16", "float16"]),
        ({}, None, ["float16"]),
        ({"amp": False}, (9, 0), ["float32"]),
        ({"amp": False, "manual_fp16": True}, (7, 0), ["float16"]),
        ({"amp_dtype": "float16"}, (9, 0), ["float16"]),
        ({"amp_dtype": "bfloat16"}, (9, 0), ["bfloat16"]),
        ({"amp_dtype": "bfloat16"}, None, ["bfloat16"]),
    ],
)
def test_what_a_gpu_offers(monkeypatch, settings: dict, capability: Optional[tuple], dtypes: list) -> None:
    monkeypatch.setattr(compat, "has_kernel", lambda *asked: True)  # a build for CPUs has none for GPUs
    details = {"compute_capability": capability} if capability else {}
    assert list(device.offer_of_gpu(DeviceConfig(**settings), details).dtypes) == dtypes


def test_bfloat16_on_a_gpu_that_lacks_it_is_refused_and_auto_takes_float16(monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"^--amp_dtype=bfloat16: the GPU has compute capability 7\.0.*=float16$"):
        device.offer_of_gpu(ASKED, {"compute_capability": (7, 0)})
    monkeypatch.setattr(compat, "has_kernel", lambda name, dtype: name != "Tanh")
    with pytest.raises(ValueError, match=r"has no bfloat16 kernel of Tanh for GPUs; give .*$"):
        device.offer_of_gpu(ASKED, {"compute_capability": (8, 0)})
    offer = device.offer_of_gpu(DeviceConfig(), {"compute_capability": (8, 0)})
    assert offer.dtypes == ("float16",) and "Tanh" in offer.reason


def test_kernels_are_found_by_their_dtype() -> None:
    assert compat.has_kernel("MatMul", tf.float32, "CPU")
    assert not compat.has_kernel("MatMul", tf.string, "CPU")
    assert not compat.has_kernel("MatMul", tf.float32, "TPU")


def test_the_operations_that_a_gpu_needs_are_those_of_the_graph() -> None:
    model = dataclasses.replace(MODEL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    moved = {"Cast", "Const", "Identity", "IdentityN", "PartitionedCall", "Reshape", "Shape"}  # kernels of any dtype
    found = set()
    for backend in (Backend.XLA_LAYERS, Backend.PLAIN):
        with tf.Graph().as_default() as graph:
            weights = {name: tf.identity(weight) for name, weight in variables.create_variables(model, 1).items()}
            dropout = Dropout(0, 0, tf.constant(0), tf.constant(0), backend.is_compiled)
            batch = row_batch(random_examples(np.random.default_rng(0), 4), 4, pack=True)
            half = Precision(tf.bfloat16, tf.bfloat16)
            sums = forward.forward_pass(weights, batch, model, make_kernels(backend), dropout, half).statistics
            tf.gradients(sums.masked_lm_loss + sums.next_sentence_loss, [*weights.values()])
            for operation in graph.get_operations():
                if any(tensor.dtype == tf.bfloat16 for tensor in (*operation.inputs, *operation.outputs)):
                    found.add(operation.type)
    assert found - moved == set(device._GPU_OPERATIONS)


def test_a_cpu_multiplies_in_float32_unless_it_is_told_otherwise() -> None:
    config = tf.compat.v1.ConfigProto()
    assert device.offer_of_cpu(DeviceConfig(), 64, config) == DtypeOffer(("float32",))
    assert device.offer_of_cpu(DeviceConfig(amp=False, amp_dtype="bfloat16"), 64, config) == DtypeOffer(("float32",))


@pytest.mark.parametrize(("speed", "best"), [(1.4, "bfloat16"), (0.7, "float32")])
def test_a_cpu_takes_bfloat16_where_it_is_measured_to_be_faster(monkeypatch, speed: float, best: str) -> None:
    monkeypatch.setattr(native, "cpu_instructions", lambda: b"flags: avx512f avx512_bf16")
    monkeypatch.setattr(device, "_relative_speed", lambda *measured: speed)
    offer = device.offer_of_cpu(ASKED, 64, tf.compat.v1.ConfigProto())
    assert offer.dtypes[0] == best and set(offer.dtypes) == {"bfloat16", "float32"}
    assert bool(offer.reason) == (best == "float32")


def test_a_cpu_without_the_instructions_is_not_measured(monkeypatch) -> None:
    monkeypatch.setattr(native, "cpu_instructions", lambda: b"flags: avx512f")
    offer = device.offer_of_cpu(ASKED, 64, tf.compat.v1.ConfigProto())
    assert offer == DtypeOffer(("float32",), "this CPU has neither AVX512_BF16 nor AMX")


def test_the_measurement_measures() -> None:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1)
    assert 0.01 < device._relative_speed(64, config) < 100.0


@pytest.mark.parametrize(
    ("own", "others", "previous", "dtype", "notice"),
    [
        (BOTH, [], None, "bfloat16", None),
        (BOTH, [BOTH], None, "bfloat16", None),
        (BOTH, [SLOW], None, "float32", "products in float32, not bfloat16: rank 1: slow"),
        (SLOW, [BOTH], None, "float32", "products in float32, not bfloat16: rank 0: slow"),
        (BOTH, [BOTH, NEVER], "bfloat16", "float32", "products in float32, not bfloat16: rank 2: old"),
        (SLOW, [], "bfloat16", "bfloat16", None),
        (BOTH, [], "float32", "float32", "products in float32, not bfloat16, as at the previous start of this run"),
        (NEVER, [], None, "float32", "products in float32, not bfloat16: old"),
        (DtypeOffer(("float32",)), [], "bfloat16", "float32", None),
        (DtypeOffer(("bfloat16", "float16")), [DtypeOffer(("float16",))], None, "float16",
         "products in float16, not bfloat16, which all ranks can compute"),
        (DtypeOffer(("float32",)), [DtypeOffer(("float16",))], None, "float32", None),
    ],
)  # fmt: skip
def test_all_ranks_take_what_the_least_capable_can(own, others, previous, dtype: str, notice: Optional[str]) -> None:
    assert device.agree_on_dtype(OneOf(0, others), own, previous) == (dtype, [notice] if notice else [])
    if len(others) == 1 and dtype != "float32":
        assert device.agree_on_dtype(OneOf(1, [own]), others[0], previous)[0] == dtype


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16."""
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()


def test_a_layer_multiplies_rounded_operands_and_accumulates_in_float32() -> None:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype(np.float32) for shape in ([64, 96], [96, 32], [64, 32])]
    bias = np.ones([32], np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        # Not constants: those are multiplied before the session begins, by kernels that cut the last bits off.
        inputs, kernel, grad = (tf.compat.v1.placeholder(tf.float32, array.shape) for array in arrays)
        output = dense({"x/kernel": kernel, "x/bias": tf.constant(bias)}, "x", inputs, tf.bfloat16)
        fetches = [output, *tf.gradients(output, [inputs, kernel], grad)]
        found = session.run(fetches, dict(zip((inputs, kernel, grad), arrays)))
    operands = map(rounded, arrays)
    i, k, g = (operand.astype(np.float64) for operand in operands)
    for actual, exact in zip(found, [i @ k + bias, g @ k.T, i.T @ g]):
        assert actual.dtype == np.float32
        # The result is rounded once: half a unit of bfloat16's last place, 2^-9 of its magnitude.
        np.testing.assert_allclose(actual, exact, rtol=2.0**-8, atol=2.0**-8)


def test_the_gradient_differs_from_float32_s_by_the_rounding_of_bfloat16() -> None:
    examples = random_examples(np.random.default_rng(3), 12)
    exact, single = gradient(examples, 5, pack=True)
    close, half = gradient(examples, 5, pack=True, dtype=tf.bfloat16)
    assert 1e-5 < relative_difference(exact, close) < 1e-3
    np.testing.assert_allclose(half[:8], single[:8], rtol=2e-3)


def test_a_resumed_run_keeps_its_dtype_though_a_measurement_says_otherwise(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(native, "cpu_instructions", lambda: b"flags: avx512_bf16")
    data = runs.make_data(tmp_path)

    def start(speed: float, updates: int, **settings: object) -> tuple[str, str]:
        monkeypatch.setattr(device, "_relative_speed", lambda *measured: speed)
        values = runs.settings(output_dir=str(tmp_path / "out"), num_train_steps=updates, **settings)
        runs.train(**data, **values)
        return json.loads((tmp_path / "out" / "run.json").read_text())["compute_dtype"], capsys.readouterr().out

    if backends.best() is Backend.NATIVE:
        library = native.library()
        monkeypatch.setattr(native, "library", lambda: library)
    dtype, out = start(2.0, 2, amp_dtype="bfloat16")
    assert dtype == "bfloat16" and "cpu x1, bfloat16" in out
    assert start(0.5, 4, amp_dtype="bfloat16")[0] == "bfloat16"
    dtype, out = start(2.0, 5)
    assert dtype == "float32"
    assert "--amp_dtype was bfloat16 at the previous start and is auto now: the same update, up to rounding" in out
    assert "compute_dtype was bfloat16 at the previous start and is float32 now: the same update, up to rounding" in out


def test_the_activations_of_a_cpu_are_float32() -> None:
    cpu = device.Device("cpu", False, 0, tf.bfloat16, Backend.PLAIN, [])
    assert cpu.precision == Precision(tf.bfloat16, tf.float32)
    assert cpu._replace(is_gpu=True).precision == Precision(tf.bfloat16, tf.bfloat16)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Says how many GPUs TensorFlow shows; returns the list of those that its eager context gets."""

    def show(count: int) -> list:
        used = []
        shown = [f"GPU {number}" for number in range(count)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: shown)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": gpu})
        monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: used.extend(devices))
        return used

    return show


@pytest.mark.parametrize(("visible", "local_rank", "gpu"), [(4, 0, 0), (4, 3, 3), (1, 3, 0)])
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one(gpus, visible: int, local_rank: int, gpu: int) -> None:
    used = gpus(visible)
    chosen = device.choose_device(DeviceConfig(), set(), local_rank)
    assert used == [f"GPU {gpu}"]
    assert (chosen.name, chosen.gpu, chosen.compute_dtype) == (f"GPU {gpu}", gpu, tf.float16)
    assert device.session_config(DeviceConfig(), chosen.gpu).gpu_options.visible_device_list == str(gpu)


def test_fused_attention_is_taken_where_it_is_asked_for_and_can_be_had(gpus, monkeypatch) -> None:
    asked = DeviceConfig(attention="fused")
    gpus(0)
    assert "--attention=fused has no effect: no GPU" in device.choose_device(asked).notices
    gpus(1)
    with pytest.raises(ValueError, match="--attention=fused: products are in float16"):
        device.choose_device(asked)
    monkeypatch.setattr(compat, "has_kernel", lambda name, dtype: True)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": (9, 0)})
    with pytest.raises(ValueError, match="--attention=fused: XLA does not work here, or --nouse_xla is given"):
        device.choose_device(dataclasses.replace(asked, use_xla=False))
    prepared = []
    monkeypatch.setattr(fused, "prepare", prepared.append)
    assert device.choose_device(asked).backend is Backend.XLA_FUSED
    assert prepared == [(9, 0)]
    assert device.choose_device(DeviceConfig()).backend is Backend.XLA_LAYERS

    def fail(capability: tuple[int, int]) -> None:
        raise fused.UnavailableError("there is no NVRTC")

    monkeypatch.setattr(fused, "prepare", fail)
    with pytest.raises(ValueError, match="--attention=fused: there is no NVRTC; leave it out"):
        device.choose_device(asked)


def test_more_ranks_than_gpus_are_refused(gpus) -> None:
    gpus(2)
    with pytest.raises(ValueError, match=r"shows 2 GPUs; start 2 ranks \(NP=2\)"):
        device.choose_device(DeviceConfig(), set(), local_rank=2)


def test_a_cpu_says_once_that_it_computes_in_float32(gpus) -> None:
    gpus(0)
    assert device.choose_device(DeviceConfig(), set()).notices == []
    (notice,) = device.choose_device(DeviceConfig(), {"amp"}).notices
    assert notice.startswith("--amp ignored: no GPU")
    (notice,) = device.choose_device(DeviceConfig(amp_dtype="float16"), {"amp_dtype"}).notices
    assert notice.startswith("--amp_dtype=float16 ignored: no GPU")
    (notice,) = device.choose_device(DeviceConfig(amp=False, amp_dtype="bfloat16"), {"amp_dtype"}).notices
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
    (notice,) = device.choose_device(DeviceConfig(), {"use_xla"}).notices
    assert notice.startswith("--use_xla has no effect") and "--nonative_kernels" in notice
    assert device.choose_device(DeviceConfig(native_kernels=False), {"use_xla"}).notices == []
    assert device.choose_device(DeviceConfig(use_xla=False), {"use_xla"}).notices == []


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_grappler_is_left_out_on_cpus(gpus, num_gpus: int) -> None:
    gpus(num_gpus)
    proto = device.session_config(DeviceConfig(), 0)
    assert proto.graph_options.rewrite_options.disable_meta_optimizer == (num_gpus == 0)


@pytest.mark.parametrize("tool", ["nvidia-smi", "ixsmi"])
def test_gpus_that_tensorflow_does_not_see_are_an_error_unless_the_cpu_is_asked_for(
    monkeypatch, tmp_path, tool
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees a GPU")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.choose_device(DeviceConfig()).name == "cpu"
    (tmp_path / tool).write_text(
        "#!/bin/sh\necho 'GPU 0: Some Model (UUID: GPU-1)'\necho 'GPU 1: Some Model (UUID: GPU-2)'\n"
    )
    (tmp_path / tool).chmod(0o755)
    with pytest.raises(ValueError, match=r"2 GPUs \(GPU 0: Some Model\).*--device=cpu") as error:
        device.choose_device(DeviceConfig())
    assert "\n" not in str(error.value)
    assert not device.choose_device(DeviceConfig(device="cpu")).is_gpu
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not device.choose_device(DeviceConfig()).is_gpu


def test_xla_is_tried_before_it_is_used() -> None:
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1)
    assert device.why_not_xla(config) is None
    config.device_count["CPU"] = 0  # no device that could compile anything
    assert device.why_not_xla(config)


def test_a_run_whose_operations_must_be_deterministic_ends(tmp_path: Path) -> None:
    """TensorFlow refuses what it knows to differ from run to run, on CPUs, too."""
    if not hasattr(tf.config.experimental, "enable_op_determinism"):
        with pytest.raises(ValueError, match="--deterministic"):
            compat.require_determinism()
        return
    settings = runs.settings(output_dir=str(tmp_path / "run"), native_kernels=False, num_train_steps=1, do_eval=True)
    before = "from bert_pretrain.tensorflow_compat import compat\ncompat.require_determinism()"
    ended = runs.start(runs.flags(**runs.make_data(tmp_path), **settings), before=before)
    assert ended.returncode == 0, ended.stderr


def test_ranks_on_gpus_are_told_what_they_lack() -> None:
    chosen = device.Device("gpu", True, 0, tf.float16, Backend.XLA_LAYERS, [], DtypeOffer(("float16",)))

    class Ranks(OneOf):
        why_through_hosts = "no NCCL"

        def allgather(self, value):
            return [value, value]

    world = Ranks(0, [None])
    notices = device.agree_on_device(chosen, world, None).notices
    for notice, part in zip(notices, ("2 ranks share one GPU", "NCCL")):
        assert part in notice
    assert len(notices) == 2
    assert device.agree_on_device(chosen._replace(is_gpu=False), world, None).notices == []
