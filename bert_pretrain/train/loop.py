"""The life of a run: prepare, continue or start, train or evaluate, leave results. Every rank walks it together."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any, Optional

import tensorflow as tf

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import directories
from bert_pretrain.config.training import Config
from bert_pretrain.data import input_fn as inputs
from bert_pretrain.data.shards import ShardIndex, find_shards
from bert_pretrain.model import variables
from bert_pretrain.optim import schedule
from bert_pretrain.train import checkpoints, device, run_file
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


def run(config: Config, given: set[str]) -> int:
    """Does what the settings ask for; returns the exit code. `given` names the flags that the person set.

    ValueError, one line, for anything that is wrong with the input.
    """
    config.check()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    world = connect(config.run.horovod)
    model = ModelConfig.from_json(config.run.bert_config_file)
    return Run(config, given, model, world).go()
