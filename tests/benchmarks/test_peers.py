"""The peers that ours is measured against do the same work: optimizers, records, whole steps."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import inputs, training
from benchmarks.peers import environment, google_optimizers, records
from bert_pretrain.data import schema
from tests.optim import five_updates
from tests.references.google_modeling import google_code
from tests.references.numpy_optimizers import NumpyLamb

_WHY = "the other peer and the plot come with extras: pip install -e .[interop,plot]"


def _assert_as_stated(weights_after: list[dict[str, np.ndarray]]) -> None:
    reference = NumpyLamb(five_updates.initial_weights(), 0.9, 0.999, epsilon=1e-6, weight_decay_rate=0.01)
    for weights, stated in zip(weights_after, five_updates.reference_updates(reference)):
        for name in five_updates.SHAPES:
            np.testing.assert_allclose(weights[name], stated.weights[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_lamb_in_googles_place_is_lamb(num_micro_batches, monkeypatch):
    rule = google_code().optimization.AdamWeightDecayOptimizer
    apply_gradients = google_optimizers.lamb
    if num_micro_batches > 1:
        apply_gradients = google_optimizers.accumulating(apply_gradients, num_micro_batches)
    monkeypatch.setattr(rule, "apply_gradients", apply_gradients)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        weights = {
            name: tf.compat.v1.get_variable(name, initializer=tf.constant(value))
            for name, value in five_updates.initial_weights().items()
        }
        fed = {name: tf.compat.v1.placeholder(tf.float32, shape) for name, shape in five_updates.SHAPES.items()}
        rate = tf.compat.v1.placeholder(tf.float32, [])
        optimizer = rule(rate, weight_decay_rate=0.01, exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"])
        update = optimizer.apply_gradients([(fed[name], weights[name]) for name in fed])
        add = tf.compat.v1.get_collection(google_optimizers.ADD_MICRO_BATCH) * (num_micro_batches - 1)
        session.run(tf.compat.v1.global_variables_initializer())
        after = []
        for number, learning_rate in enumerate(five_updates.LEARNING_RATES):
            values = five_updates.gradients(number)
            feed = {fed[name]: values[name] * five_updates.GRADIENT_SCALE for name in fed}
            for operation in [*add, update]:
                session.run(operation, {rate: learning_rate, **feed})
            after.append(session.run(weights))
    _assert_as_stated(after)


@pytest.mark.interop
def test_lamb_for_torch_is_lamb():
    torch = pytest.importorskip("torch", reason=_WHY)
    from benchmarks.peers.torch_lamb import Lamb

    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in five_updates.initial_weights().items()}
    rule = Lamb(weights.items(), lr=0.0)
    after = []
    for number, learning_rate in enumerate(five_updates.LEARNING_RATES):
        for name, value in five_updates.gradients(number).items():
            weights[name].grad = torch.tensor(value * five_updates.GRADIENT_SCALE)
        for group in rule.param_groups:
            group["lr"] = learning_rate
        rule.step()
        after.append({name: value.detach().numpy().copy() for name, value in weights.items()})
    _assert_as_stated(after)


@pytest.mark.parametrize("lengths", ["wiki", "full"])
def test_records_are_read_without_tensorflow(tmp_path, lengths):
    paths = inputs.make_shards(str(tmp_path), lengths, seq_length=64, max_predictions=10, num_records=24)
    read = records.read(paths)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        serialized = list(tf.compat.v1.io.tf_record_iterator(paths[0]))
        ours = session.run(schema.parse_examples(tf.constant(serialized), tf.constant([""] * len(serialized)), 64, 10))
    assert len(read.input_ids) == 24
    for name in schema.Examples._fields:
        np.testing.assert_array_equal(getattr(read, name)[: len(serialized)], getattr(ours, name), err_msg=name)
    num_tokens = read.input_mask.sum(axis=1)
    assert (num_tokens == 64).all() == (lengths == "full")
    np.testing.assert_array_equal(
        read.masked_lm_weights.sum(axis=1), np.clip(np.round(0.15 * num_tokens), 1, 10), err_msg="masked tokens"
    )


@pytest.mark.interop
@pytest.mark.slow
def test_workers_take_turns_and_agree_on_the_first_loss(tmp_path):
    for package in ("torch", "transformers", "matplotlib"):
        pytest.importorskip(package, reason=_WHY)
    training.main(
        [
            *("--workers", "ours,google,hugging_face_masked", "--models", "tiny-128", "--lengths", "wiki"),
            *("--at_once", "3"),
            *("--batch_size", "2", "--num_accumulation_steps", "2", "--num_records", "16", "--rounds", "2"),
            *("--steps_per_round", "1", "--own_steps_per_round", "1", "--output_dir", str(tmp_path)),
        ]
    )
    assert "Google" in (tmp_path / "training.svg").read_text()
    (comparison,) = json.loads((tmp_path / "training.json").read_text())["comparisons"]
    results = {result["worker"]: result for result in comparison["results"]}
    assert list(results) == ["ours", "google", "hugging_face_masked"]
    for result in results.values():
        assert result["first_loss"] == pytest.approx(results["google"]["first_loss"], abs=1e-4)
        assert [turn["examples"] for turn in result["rounds"]] == [[4], [4]]
        assert result["examples_per_second"] > 0
        assert 9.0 < result["mean_loss"] < 13.0  # ln 30522 + ln 2 = 11.02


def test_the_first_worker_is_measured_beside_every_other():
    assert training._groups(["ours", "a", "b", "c"], at_once=2) == [["ours", "a"], ["ours", "b"], ["ours", "c"]]
    assert training._groups(["ours", "a", "b", "c"], at_once=3) == [["ours", "a", "b"], ["ours", "c"]]
    assert training._groups(["ours"], at_once=2) == [["ours"]]


@pytest.mark.parametrize(
    ("workers", "missing"),
    [("ours", "matplotlib"), ("ours,google", "bert"), ("ours,hugging_face_compiled", "torch")],
)
def test_what_is_not_installed_is_named_before_anything_is_measured(workers, missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        training.main([f"--workers={workers}", f"--output_dir={tmp_path}/new"])
    assert ended.value.code == 2 and not (tmp_path / "new").exists()
    assert re.search(rf"error: .*{missing}.* not installed; pip install -e", capsys.readouterr().err)


@pytest.mark.slow
def test_an_environment_is_made_once_from_its_pins(tmp_path, monkeypatch):
    """With an empty list of pins, because the real one downloads gigabytes."""
    module = tmp_path / "module" / "environment.py"
    module.parent.mkdir()
    monkeypatch.setattr(environment, "__file__", str(module))
    monkeypatch.setenv("BERT_PRETRAIN_CACHE", str(tmp_path / "cache"))
    pins = module.with_name("worker.txt")
    pins.write_text("--no-index\nno-such-package==1\n")
    with pytest.raises(RuntimeError, match=r"worker\.txt cannot be installed: ERROR: No matching distribution found"):
        environment.python_of("worker")
    pins.write_text("# nothing\n")
    python = environment.python_of("worker")
    assert subprocess.run([python, "-c", "import pip"], check=True).returncode == 0
    monkeypatch.setattr(environment, "_make", pytest.fail)
    assert environment.python_of("worker") == python


def test_intels_environment_has_exact_versions():
    lines = pathlib.Path(environment.__file__).with_name("intel_extension.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith(("#", "--"))]
    assert {"torch==2.8.0", "intel-extension-for-pytorch==2.8.0", "transformers==4.51.3"} <= set(pins)
    assert all(re.match(r"[a-z-]+==[\d.]+(; .*)?$", pin) for pin in pins)
