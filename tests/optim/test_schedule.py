"""The learning rate against a table of literal values and against MLPerf's reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bert_pretrain.optim import schedule
from bert_pretrain.optim.settings import OptimConfig
from tests.references import numpy_schedule

PEAK = 1e-3

WARMUP = OptimConfig(num_train_steps=10, num_warmup_steps=4)
NO_WARMUP = OptimConfig(num_train_steps=10, num_warmup_steps=0)
SQUARE_ROOT = OptimConfig(num_train_steps=4, num_warmup_steps=0, poly_power=0.5)
# MLPerf's recipe for a global batch of 8192.
EARLY_START = OptimConfig(num_train_steps=600, num_warmup_steps=287, start_warmup_step=-76)
LINEAR = OptimConfig(num_train_steps=10, num_warmup_steps=4, lr_schedule="linear")
LINEAR_EARLY = OptimConfig(num_train_steps=10, num_warmup_steps=4, start_warmup_step=-2, lr_schedule="linear")
COSINE = OptimConfig(num_train_steps=10, num_warmup_steps=2, lr_schedule="cosine")
CONSTANT = OptimConfig(num_train_steps=10, num_warmup_steps=2, lr_schedule="constant", num_decay_steps=4)
FOREVER = OptimConfig(num_train_steps=10, num_warmup_steps=0, lr_schedule="constant")

TABLE = [
    (WARMUP, 0, 0.0),  # warm-up starts at 0
    (WARMUP, 1, 0.25e-3),  # 1/4 of the peak
    (WARMUP, 2, 0.5e-3),
    (WARMUP, 3, 0.75e-3),  # the last of the four warm-up steps
    (WARMUP, 4, 0.6e-3),  # decay, measured from step 0: 1 - 4/10
    (WARMUP, 5, 0.5e-3),
    (WARMUP, 9, 0.1e-3),  # the last update of the run
    (WARMUP, 10, 0.0),  # the end of training
    (WARMUP, 15, 0.0),  # later steps stay at 0
    (NO_WARMUP, 0, 1e-3),  # without warm-up, the first update has the peak rate
    (NO_WARMUP, 1, 0.9e-3),
    (NO_WARMUP, 10, 0.0),
    (SQUARE_ROOT, 0, 1e-3),
    (SQUARE_ROOT, 1, 0.8660254e-3),  # (3/4) ** 0.5
    (SQUARE_ROOT, 2, 0.7071068e-3),
    (SQUARE_ROOT, 3, 0.5e-3),
    (SQUARE_ROOT, 4, 0.0),
    (EARLY_START, 0, 0.2648084e-3),  # 76/287: the warm-up started from 0 at step -76
    (EARLY_START, 100, 0.6132404e-3),  # 176/287
    (EARLY_START, 210, 0.9965157e-3),  # 286/287, the last step of the warm-up
    (EARLY_START, 211, 0.6483333e-3),  # 1 - 211/600
    (EARLY_START, 599, 0.0016667e-3),
    (EARLY_START, 600, 0.0),
    (LINEAR, 3, 0.75e-3),
    (LINEAR, 4, 1e-3),  # from the end of the warm-up on
    (LINEAR, 7, 0.5e-3),  # 3 of 6 updates remain
    (LINEAR, 10, 0.0),
    (LINEAR_EARLY, 2, 1e-3),  # the warm-up ends two updates earlier
    (LINEAR_EARLY, 6, 0.5e-3),  # 4 of 8 remain
    (COSINE, 1, 0.5e-3),
    (COSINE, 2, 1e-3),
    (COSINE, 4, 0.8535534e-3),  # (1 + cos(pi / 4)) / 2
    (COSINE, 6, 0.5e-3),  # the middle of 8
    (COSINE, 12, 0.0),
    (CONSTANT, 1, 0.5e-3),
    (CONSTANT, 2, 1e-3),
    (CONSTANT, 6, 1e-3),  # the last four begin to fall
    (CONSTANT, 7, 0.75e-3),
    (CONSTANT, 9, 0.25e-3),
    (CONSTANT, 10, 0.0),
    (FOREVER, 0, 1e-3),
    (FOREVER, 9, 1e-3),
]

# MLPerf's reference convergence points: peak, warm-up steps, start of warm-up, updates.
MLPERF = [
    (3.5e-4, 0, 0, 13700),
    (2.0e-3, 100, 0, 1141),
    (2.9293e-3, 0, -700, 700),
    (2.88293e-3, 287, -76, 600),
    (3.1e-3, 300, -100, 500),
    (3.3e-3, 290, -100, 600),
]


def _evaluate(steps: list[int], config: OptimConfig, peak: float) -> np.ndarray:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.placeholder(tf.int64, [])
        rate = schedule.learning_rate(step, config, peak)
        assert rate.dtype == tf.float32
        return np.array([session.run(rate, {step: value}) for value in steps])


@pytest.mark.parametrize(("config", "step", "expected"), TABLE)
def test_python_numbers_give_the_table(config, step, expected):
    assert schedule.learning_rate(step, config, PEAK) == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_tensors_give_the_table():
    for config in {config for config, _, _ in TABLE}:
        lines = [(step, expected) for other, step, expected in TABLE if other == config]
        rates = _evaluate([step for step, _ in lines], config, PEAK)
        assert rates == pytest.approx([expected for _, expected in lines], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("peak", "num_warmup_steps", "start_warmup_step", "num_train_steps"), MLPERF)
@pytest.mark.parametrize("poly_power", [1.0, 0.5])
def test_mlperfs_recipes_give_the_reference_rates(
    peak, num_warmup_steps, start_warmup_step, num_train_steps, poly_power
):
    recipe = {
        "num_warmup_steps": num_warmup_steps,
        "start_warmup_step": start_warmup_step,
        "num_train_steps": num_train_steps,
        "poly_power": poly_power,
    }
    config = OptimConfig(**recipe)
    steps = [*range(0, num_train_steps, max(1, num_train_steps // 50)), num_train_steps - 1, num_train_steps]
    expected = [numpy_schedule.learning_rate(step, peak, **recipe) for step in steps]
    assert [schedule.learning_rate(step, config, peak) for step in steps] == pytest.approx(expected, rel=1e-6)
    # In float32, 1 - step / N has an error of up to 6e-8; near the end, its root is 2.4e-4 of the peak.
    assert _evaluate(steps, config, peak) == pytest.approx(expected, rel=1e-5, abs=peak * 1e-5)


@pytest.mark.parametrize(
    ("lr_scaling", "num_ranks", "horovod", "expected"),
    [
        ("linear", 8, True, 4e-4),  # DeepSparkHub's recipe: 5e-5 x 8 ranks
        ("linear", 8, False, 5e-5),  # without --horovod each process trains on its own
        ("linear", 1, True, 5e-5),
        ("none", 8, True, 5e-5),
    ],
)
def test_linear_lr_scaling_multiplies_the_peak_by_the_ranks_under_horovod(lr_scaling, num_ranks, horovod, expected):
    config = OptimConfig(learning_rate=5e-5, lr_scaling=lr_scaling)
    assert schedule.effective_peak(config, num_ranks, horovod) == pytest.approx(expected)
