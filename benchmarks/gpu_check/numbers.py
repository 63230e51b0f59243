"""The same network on the device that is checked and on the CPU, in one process: its logits, and one update.

The unit roundoff u of a dtype is half the distance from 1 to the next number. Every product and sum of a network rounds
by up to u of its magnitude, and errors that are independent add up like their squares, so results differ by a few u.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks import inputs
from benchmarks.gpu_check.child import Report, table
from benchmarks.gpu_check.start import device_settings
from benchmarks.ours import batch_of, open_source, start_session
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, RunConfig
from bert_pretrain.data.input_fn import TrainingInput, UpdateShape
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import encoder, heads, variables
from bert_pretrain.optim.settings import OptimConfig
from bert_pretrain.train import device, forward, train_step
from bert_pretrain.train.device import Device
from bert_pretrain.train.job import Job

UNIT_ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# A gradient may be this many u apart, as a share of its norm. Sums are in float32 for all dtypes; for float32 itself
# their roundings add to those of the operands. Seen on a CPU, in 4 and 12 layers: 15, 5 and 2 u in float32, float16 and
# bfloat16.
ROUNDINGS = {"float32": 128, "tf32": 32, "float16": 32, "bfloat16": 32}
LOGITS_ALLOWED = 1e-4  # as between this project and Google's code, tests/model/test_against_google.py
# Biases of keys shift all scores of a query alike, which softmax ignores: their true gradient is zero.
_WITHOUT_GRADIENT = "attention/self/key/bias"
_SEQ_LENGTH, _MAX_PREDICTIONS = 512, 76
_MOST_ATTEMPTS = 16  # of an update whose loss scale is too large at first; each halves it
_MODELS = pathlib.Path(__file__).parents[2] / "configs" / "model"
_BASIS = "are some unit roundoffs of the dtype: a loss 4 (16 in float32), a gradient 32 (128)"
_COLUMNS = ["what", "difference", "allowed", "within", "where"]


def compare(report: Report, name: str, model: str, examples: int, dtypes: Sequence[str], device_name: str) -> None:
    """Logits in float32 where dtypes has it, and one update in each dtype, beside those of the CPU in float32.

    tf32: float32 as GPUs from Ampere on compute it.
    """
    chosen = device.choose_device(DeviceConfig(**device_settings(device_name)))
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(str(_MODELS / f"{model}.json"), examples, folder)
    rows: list[dict[str, Any]] = []

    def tell(is_done: bool) -> None:
        cells = [[*(row.get(key, "") for key in ("name", "difference", "allowed", "ok", "where"))] for row in rows]
        title = f"{name}: relative Euclidean differences from the CPU's in float32; allowed {_BASIS}"
        report(name, is_done, table=table(title, _COLUMNS, cells), wrong=wrong_rows(rows), figures=_figures(rows))

    if "float32" in dtypes:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        rows += _logits_rows(case, chosen)
        tell(is_done=False)
    expected = update(case, reference())
    for dtype in dtypes:
        tf.config.experimental.enable_tensor_float_32_execution(dtype == "tf32")
        try:
            side = checked("float32" if dtype == "tf32" else dtype, chosen)
            rows += _update_rows(dtype, update(case, side), expected)
        except (tf.errors.OpError, RuntimeError, ValueError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            rows.append({"name": dtype, "ok": False, "where": reason})
        tell(is_done=dtype == dtypes[-1])


def wrong_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The comparisons that are not within what is allowed."""
    return [
        f"{row['name']}: {row['difference']:.2g}, {row['allowed']:.2g} allowed"
        if "difference" in row
        else f"{row['name']}: {row['where']}"
        for row in rows
        if not row["ok"]
    ]


def _figures(rows: Sequence[Mapping[str, Any]]) -> str:
    shares = [row["difference"] / row["allowed"] for row in rows if "difference" in row]
    return f"at most {max(shares):.2f} of what rounding explains" if shares else ""


def _logits_rows(case: Case, chosen: Device) -> list[dict[str, Any]]:
    expected, found = logits(case, reference()), logits(case, checked("float32", chosen))
    rows = []
    for name, one, other in zip(("masked tokens", "next sentence"), found, expected):
        difference = np.abs(one - other)
        value = float(difference.max()) if np.isfinite(difference).all() else math.inf
        where = f"largest of {other.size:,} logits, whose deviation is {other.std():.3f}"
        rows.append(row(f"logits of {name}", value, LOGITS_ALLOWED, where))
    return rows


def _update_rows(dtype: str, found: Update, expected: Update) -> list[dict[str, Any]]:
    gradient = largest_difference(found.moments, expected.moments)
    step = largest_difference(found.steps, expected.steps)
    loss = abs(found.loss - expected.loss) / expected.loss
    scale = f"loss scale {found.loss_scale:g}, {found.num_skipped} skipped" if dtype == "float16" else ""
    return [
        row(f"{dtype}: loss", loss, allowed_loss(dtype), scale),
        row(f"{dtype}: gradient", gradient.value, allowed_gradient(dtype), gradient.variable),
        row(f"{dtype}: weights' step", step.value, allowed_step(dtype), step.variable),
    ]


# --- How far two results may be apart ---


class Difference(NamedTuple):
    """The largest relative difference over variables."""

    value: float
    variable: str


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, Euclidean; not finite where found is not."""
    scale = float(np.linalg.norm(expected.astype(np.float64)))
    difference = float(np.linalg.norm(found.astype(np.float64) - expected))
    return difference / scale if scale else (math.inf if difference else 0.0)


def largest_difference(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Difference:
    """The variable whose relative difference is the largest, or is not finite."""
    differences = [
        Difference(relative_difference(found[name], expected[name]), name)
        for name in expected
        if _WITHOUT_GRADIENT not in name
    ]
    return max(differences, key=lambda one: one.value if math.isfinite(one.value) else math.inf)


def allowed_gradient(dtype: str) -> float:
    """The largest relative difference of a variable's gradient that rounding explains."""
    return ROUNDINGS[dtype] * UNIT_ROUNDOFF[dtype]


def allowed_loss(dtype: str) -> float:
    """The same for the loss: a mean over tokens, whose errors average out, of which the logits are a small share."""
    return allowed_gradient(dtype) / 8


def allowed_step(dtype: str) -> float:
    """The same for what the first update of LAMB adds to a variable.

    That is close to the gradient's sign: of elements with a relative error e, about e / pi change their sign, and each
    moves by twice its step, so the relative difference is about 2 sqrt(e / pi); twice that is allowed.
    """
    return 4.0 * math.sqrt(allowed_gradient(dtype) / math.pi)


def row(name: str, value: float, allowed: float, where: str = "") -> dict[str, Any]:
    """One comparison."""
    return {"name": name, "difference": value, "allowed": allowed, "where": where, "ok": bool(value <= allowed)}


# --- What both sides compute ---


class Case(NamedTuple):
    """What both sides compute."""

    model: ModelConfig  # without dropout
    start: dict[str, np.ndarray]  # variable -> first value
    batch: BatchTensors  # one micro-batch


class Side(NamedTuple):
    """Where and how a network is computed."""

    device: Device
    session_config: tf.compat.v1.ConfigProto


class Update(NamedTuple):
    """One update with LAMB."""

    loss: float
    moments: dict[str, np.ndarray]  # LAMB's m: the clipped gradient times 1 - beta_1
    steps: dict[str, np.ndarray]  # what the update added to each variable
    loss_scale: float
    num_skipped: int  # attempts whose gradient was not finite


def make_case(model_json: str, num_examples: int, directory: str) -> Case:
    """Random first weights and examples of Wikipedia's lengths, packed as for XLA's kernels."""
    model = ModelConfig.from_json(model_json)
    inputs.make_weights(f"{directory}/weights.npz", model)
    shards = inputs.make_shards(f"{directory}/shards", "wiki", _SEQ_LENGTH, _MAX_PREDICTIONS, max(64, num_examples))
    with np.load(f"{directory}/weights.npz") as stored:
        start = dict(stored)
    source = open_source(shards, _SEQ_LENGTH, _MAX_PREDICTIONS, model)
    with tf.Graph().as_default():
        training_input = TrainingInput(source, UpdateShape(num_examples, num_examples, few_shapes=True), seed=0)
        features = training_input()
        with tf.compat.v1.Session(config=_cpu_only()) as session:
            session.run(training_input.initializer)
            values = session.run(features)
    without_dropout = dataclasses.replace(model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return Case(without_dropout, start, batch_of(values))


def reference() -> Side:
    """float32 and TensorFlow's own operations on the CPU."""
    return Side(Device("cpu", False, 0, tf.float32, Backend.PLAIN, []), _cpu_only())


def checked(dtype: str, chosen: Device) -> Side:
    """The device and the kernels that a run takes, with products in this dtype.

    A CPU has activations in float16, as GPUs do, but in float32 with bfloat16, as in a run. With bfloat16, TensorFlow's
    CPU kernel would sum a bias's gradient in bfloat16, wrong in the first digit; its GPU kernel sums in float32.
    """
    config = DeviceConfig(device="auto" if chosen.is_gpu else "cpu")
    is_gpu = chosen.is_gpu or dtype != "bfloat16"
    session_config = device.session_config(config, chosen.gpu)
    return Side(chosen._replace(is_gpu=is_gpu, compute_dtype=tf.as_dtype(dtype)), session_config)


def logits(case: Case, side: Side) -> tuple[np.ndarray, np.ndarray]:
    """Of masked tokens [M, V] and of examples [E, 2]."""
    with tf.Graph().as_default():
        weights, batch = variables.create_variables(case.model, seed=0), BatchTensors(*map(tf.constant, case.batch))
        kernels, rows = make_kernels(side.device.backend), encoder.Rows(*batch[:4])
        sequence = encoder.encode(weights, rows, case.model, kernels, precision=side.device.precision)
        outputs = (
            heads.masked_lm_logits(weights, sequence, batch.masked_positions),
            heads.next_sentence_logits(weights, sequence, batch.cls_positions),
        )
        with start_session(side.session_config, weights, case.start) as session:
            return session.run(outputs)


def update(case: Case, side: Side) -> Update:
    """One update at a learning rate of 1. RuntimeError where its gradient is not finite at any loss scale."""
    optim = OptimConfig(learning_rate=1.0, num_warmup_steps=0)
    config = Config(RunConfig(), DataConfig(train_batch_size=len(case.batch.cls_positions)), optim, DeviceConfig())
    job = Job(config, case.model, World(), side.device)
    with tf.Graph().as_default():
        weights, batch = variables.create_variables(case.model, seed=0), BatchTensors(*map(tf.constant, case.batch))
        global_step, zero = tf.compat.v1.train.get_or_create_global_step(), tf.constant(0.0)
        operation, values = train_step.build_train_step(job, weights, batch, zero, zero, global_step)
        slots = {variable.op.name: variable for variable in tf.compat.v1.global_variables()}
        with start_session(side.session_config, weights, case.start) as session:
            loss, loss_scale, num_skipped = _run_until_finite(session, values, operation)
            moments = session.run({name: slots[f"{name}/LAMB"] for name in weights})
            after = session.run(dict(weights))
    steps = {name: after[name] - case.start[name] for name in after}
    return Update(loss, moments, steps, loss_scale, num_skipped)


def _run_until_finite(
    session: tf.compat.v1.Session, values: train_step.UpdateValues, operation: tf.Operation
) -> tuple[float, float, int]:
    """Repeats an update until its gradient is finite: its loss, its loss scale, and how many were skipped."""
    loss_scale = None
    for num_skipped in range(_MOST_ATTEMPTS):
        fetches = [values.is_finite, values.loss_scale, forward.mean_loss(values.statistics), operation]
        is_finite, loss_scale, loss, _ = session.run(fetches)
        if is_finite:
            return float(loss), float(loss_scale), num_skipped
    raise RuntimeError(f"the gradient is not finite at a loss scale of {loss_scale}")


def _cpu_only() -> tf.compat.v1.ConfigProto:
    return tf.compat.v1.ConfigProto(device_count={"GPU": 0})
