"""What a run says before it starts: the learning rate's rule, and flags that have no effect here."""

from __future__ import annotations

import tensorflow as tf

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.distributed.world import World
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.train import startup_summary
from bert_pretrain.train.device import Device
from bert_pretrain.train.job import Job
from tests.e2e.runs import make_config
from tests.train.small import MODEL


def say(num_ranks: int = 1, **values: object) -> list[str]:
    config, world = make_config(**values), World()
    world.size = num_ranks
    job = Job(config, MODEL, world, Device("cpu", False, 0, tf.float32, Backend.XLA, []))
    return list(startup_summary.lines(job, PreviousRun(None, 0, 0), set(values)))


def rate(num_ranks: int = 1, **values: object) -> str:
    config = make_config(num_train_steps=100, **values)
    return startup_summary._learning_rate(config, num_ranks)


def test_the_rule_of_the_learning_rate_is_stated_with_its_result() -> None:
    assert rate(learning_rate=2e-4, num_warmup_steps=10) == (
        "peak 0.0002 (as given: one process); warm-up over 10 updates, zero at update 100"
    )
    assert rate(8, learning_rate=5e-5, num_warmup_steps=0, horovod=True) == (
        "peak 0.0004 (5e-05 x 8 ranks: --lr_scaling=linear); no warm-up, zero at update 100"
    )
    assert rate(8, learning_rate=5e-5, num_warmup_steps=0, horovod=True, lr_scaling="none").startswith(
        "peak 5e-05 (as given: --lr_scaling=none)"
    )


def test_flags_of_the_exchange_say_what_they_do() -> None:
    assert len(say(do_eval=True)) == 1
    (note, _) = say(do_eval=True, allreduce_fp16=True)
    assert note == "note: --allreduce_fp16: has no effect without --horovod: one process has nothing to all-reduce"
    (note, _) = say(2, do_eval=True, horovod=True, allreduce_fp16=True)
    assert note == "note: --allreduce_fp16: gradients are all-reduced in float16, 0.0 MB an update"
