"""The life of a run: prepare, continue or start, train or evaluate, leave results. Every rank walks it together."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.training import Config
from bert_pretrain.data import input_fn as inputs
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, device, preflight, run_file
from bert_pretrain.train import outcome as outcomes
from bert_pretrain.train.clock import Clock
from bert_pretrain.train.device import Device
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.hooks import Surroundings
from bert_pretrain.train.journal import Journal
from bert_pretrain.train.model_fn import Job, make_model_fn
from bert_pretrain.train.outcome import Outcome
from bert_pretrain.train.stop import StopRequest
from bert_pretrain.world import World, connect


class Prepared(NamedTuple):
    """What was found out before anything was started."""

    config: Config
    model: ModelConfig
    device: Device
    training: Optional[inputs.TrainingData]
    evaluation: Optional[inputs.EvaluationData]
    checkpoint: Optional[str]  # to continue from
    step: int  # updates done already


def run(config: Config, given: set[str]) -> int:
    """Does what the settings ask for; returns the exit code. `given` names the flags that the person set.

    ValueError, one line, for anything that is wrong with the input.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    world = connect(config.run.horovod)
    prepared = preflight.together(world, lambda: _prepare(config, given, world))
    facts = _facts(prepared, world)
    preflight.together(world, lambda: preflight.check_alike(world, facts))
    if world.is_root:
        run_file.save(config.run.output_dir, facts)
    journal = Journal(
        config.run.output_dir,
        config.run.dllog_path,
        config.optim.num_train_steps,
        config.run.report_loss,
        world.is_root,
    )
    try:
        if config.run.do_train:
            _train(prepared, world, journal)
        else:
            _evaluate_alone(prepared, world, journal)
    finally:
        journal.close()
    world.close()
    return 0
