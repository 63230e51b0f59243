"""Settings: all flags of DeepSparkHub's script exist, invalid values get one line."""

from __future__ import annotations

import dataclasses

import pytest

from bert_pretrain.config.make_data import ExampleConfig
from bert_pretrain.config.training import PARTS, Config

# The flags of DeepSparkHub's run_pretraining.py.
DEEPSPARKHUB_FLAGS = """bert_config_file input_files_dir eval_files_dir output_dir init_checkpoint eval_checkpoint_path
dllog_path optimizer_type max_seq_length max_predictions_per_seq do_train do_eval is_dist_eval_enabled train_batch_size
eval_batch_size learning_rate num_train_steps num_warmup_steps save_checkpoints_steps save_summary_steps
display_loss_steps iterations_per_loop max_eval_steps num_accumulation_steps allreduce_post_accumulation
verbose_logging horovod report_loss manual_fp16 amp use_xla init_loss_scale samples_between_eval stop_threshold
samples_start_eval enable_device_warmup""".split()

EVALUATED = {"do_eval": True, "eval_files_dir": "eval"}


def config(**changes: object) -> Config:
    values = {"bert_config_file": "c.json", "output_dir": "out", "do_train": True, "input_files_dir": "in", **changes}

    def part(kind: type) -> object:
        names = {field.name for field in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in values.items() if name in names})

    return Config(**{name: part(kind) for name, kind in PARTS.items()})


def test_every_flag_of_the_seed_exists() -> None:
    names = {field.name for part in PARTS.values() for field in dataclasses.fields(part)}
    assert len(DEEPSPARKHUB_FLAGS) == 36
    assert set(DEEPSPARKHUB_FLAGS) <= names


def test_the_defaults_are_valid_once_the_required_are_given() -> None:
    config().check()
    assert config(train_batch_size=6, num_accumulation_steps=4).examples_per_rank() == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bert_config_file": None}, "--bert_config_file is required"),
        ({"output_dir": ""}, "--output_dir is required"),
        ({"do_train": False}, "nothing to do: give --do_train, --do_eval, or both"),
        ({"input_files_dir": None}, "--do_train needs --input_files_dir"),
        ({"do_eval": True}, "--do_eval needs --eval_files_dir"),
        ({"eval_checkpoint_path": "c"}, "--eval_checkpoint_path is for --do_eval alone"),
        ({"train_batch_size": 0}, "--train_batch_size must be at least 1, got 0"),
        ({"max_seq_length": 0}, "--max_seq_length must be at least 1, got 0"),
        ({"max_eval_steps": -1}, "--max_eval_steps must be at least 0"),
        ({"learning_rate": -1.0}, "--learning_rate must be at least 0"),
        ({"num_train_steps": 0}, "--num_train_steps must be at least 1"),
        ({"beta_1": 1.0}, r"--beta_1 must be in \[0, 1\)"),
        ({"poly_power": 0.0}, "--poly_power must be above 0"),
        ({"stop_threshold": 72.0}, r"--stop_threshold must be in \[0, 1\]"),
        ({"start_warmup_step": 1}, "--start_warmup_step must be at most 0, got 1: earlier updates would have negative"),
        ({"log_epsilon": 400}, "--log_epsilon must be -37 to 0, got 400"),
        ({"log_epsilon": -50}, "--log_epsilon must be -37 to 0, got -50; smaller powers of ten are 0 in float32"),
        ({"beta_2": 0.99999999}, r"--beta_2 must be in \[0, 1\), also as a float32, got 0.99999999"),
        ({"clip_norm": 1e-50}, "--clip_norm must be a finite number that float32 can hold, got 1e-50"),
        ({"learning_rate": 1e39}, "--learning_rate must be a finite number that float32 can hold"),
        ({"num_train_steps": 2**31}, "--num_train_steps must be at most 2147483647 in magnitude, got 2147483648"),
        ({"num_accumulation_steps": 2**20 + 1}, "--num_accumulation_steps must be at most 1048576"),
        ({"intra_op_threads": 100_000}, "--intra_op_threads must be 0 to 1024, got 100000"),
        ({"save_checkpoints_steps": 0}, "--save_checkpoints_steps must be at least 1"),
        ({"inter_op_threads": 0}, "--inter_op_threads must be 1 to 1024, got 0"),
        ({"init_optimizer_state": True}, "--init_optimizer_state needs --init_checkpoint"),
        ({"init_accuracy": 34.0}, r"--init_accuracy must be in \[0, 1\]"),
        ({"verify_init": True}, "--verify_init needs --do_train, --do_eval, --init_checkpoint"),
        ({"verify_init": True, **EVALUATED, "init_checkpoint": "c"}, "--max_eval_steps=0"),
        ({"mlperf": True}, "--mlperf needs --do_train and --do_eval"),
        ({"mlperf": True, **EVALUATED, "seed": 1}, "one seed for weights and data: --seed is 1, --data_seed 0"),
        ({"mlperf": True, **EVALUATED}, "closed needs --max_eval_steps=0, got 100"),
        ({"mlperf": True, **EVALUATED, "optimizer_type": "adam"}, "closed needs --optimizer_type=lamb, got adam"),
        ({"mlperf": True, **EVALUATED, "stop_threshold": 0.7}, "closed needs --stop_threshold=0.72, got 0.7"),
    ],
)
def test_refuses(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes).check()


FLOATS = [
    (part, field.name)
    for part in (*PARTS.values(), ExampleConfig)
    for field in dataclasses.fields(part)
    if "float" in field.type
]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(("part", "name"), FLOATS)
def test_every_float_must_be_finite(part: type, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--{name} must be a finite number that float32 can hold, got {value}"):
        part(**{name: value}).check()


def test_seeds_may_be_any_integer() -> None:
    config(seed=-(2**70), data_seed=2**70).check()
