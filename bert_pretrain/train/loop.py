"""The life of a run: prepare, continue or start, train or evaluate, leave results. Every rank walks it together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.training import Config
from bert_pretrain.data import input_fn as inputs
from bert_pretrain.data.input_fn import TrainingInput
from bert_pretrain.model import variables
from bert_pretrain.train import device, preflight, run_file, startup_summary, utilization
from bert_pretrain.train import results as outcomes
from bert_pretrain.train.eval_only import conclude
from bert_pretrain.train.hooks import Surroundings
from bert_pretrain.train.job import Job
from bert_pretrain.train.metrics import ratio
from bert_pretrain.train.model_fn import Parts, make_model_fn
from bert_pretrain.train.prepare import Prepared, describe, evaluation_input, prepare
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.resume import Past, look
from bert_pretrain.train.run_logger import Journal
from bert_pretrain.train.stop import StopRequest
from bert_pretrain.train.throughput import Clock
from bert_pretrain.world import World


def run(config: Config, given: set[str], world: World) -> int:
    """Does what the settings ask for; returns the exit code. `given` names the flags that the person set.

    ValueError, one line, for anything that is wrong with the input.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    prepared = preflight.together(world, lambda: prepare(config, given, world))
    facts = describe(prepared, world)
    shapes = variables.shapes(prepared.model)
    preflight.together(world, lambda: preflight.check_alike(world, preflight.alike(facts, shapes)))
    past = preflight.of_root(world, lambda: look(config.run, prepared.model, facts))
    journal = preflight.together(world, lambda: _journal(config, world))
    job = Job(config, prepared.model, world, prepared.device.compute_dtype, prepared.device.backend)
    try:
        if config.run.do_train and past.is_finished(config.optim.num_train_steps, config.run.stop_threshold):
            _repeat_results(config.run.output_dir, past, journal)
            return 0
        for line in startup_summary.lines(prepared, past, job, given):
            journal.say(line)
        if world.is_root:
            run_file.save(config.run.output_dir, facts)
        with _explained():
            if config.run.do_train and past.step < config.optim.num_train_steps:
                results = _train(prepared, past, job, journal)
            else:
                results = conclude(prepared, past, job, journal)
        if world.is_root:
            outcomes.write(config.run.output_dir, "results.json", results)
            journal.say(outcomes.row(results))
    finally:
        journal.close()
    return 0


def _journal(config: Config, world: World) -> Journal:
    run = config.run
    return Journal(run.output_dir, run.dllog_path, config.optim.num_train_steps, run.report_loss, world.is_root)


def _train(prepared: Prepared, past: Past, job: Job, journal: Journal) -> dict[str, Any]:
    """Trains from the newest checkpoint, or the start, to the end; gives the results."""
    config, world = prepared.config, job.world
    training_input = TrainingInput(
        prepared.training,
        config.examples_per_rank(),
        config.data.train_batch_size,
        config.data.pack_sequences,
        config.data.data_seed,
        first_update=past.position,
        rank=world.rank,
        num_ranks=world.size,
    )
    outcome, clock, stop = Outcome(), Clock(), StopRequest()
    parts = Parts(
        training_input,
        evaluation_input(prepared, world),
        # The other ranks get root's variables.
        config.run.init_checkpoint if world.is_root and past.checkpoint is None else None,
        stop,
        Surroundings(clock, journal, outcome, training_input.record_names),
    )
    with stop.listening():
        estimator = tf.estimator.Estimator(
            make_model_fn(job, parts),
            _model_dir(config, world),
            tf.estimator.RunConfig(
                # This project's one hook saves, logs and counts; Estimator's own would do it on every rank.
                save_checkpoints_steps=None,
                save_checkpoints_secs=None,
                save_summary_steps=None,
                log_step_count_steps=None,
                session_config=device.session_config(config.device, prepared.device.card, world.local_size),
            ),
        )
        estimator.train(training_input, hooks=world.hooks(), max_steps=config.optim.num_train_steps)
    examples = outcome.step * job.batch_examples
    share = _utilization(prepared, clock, world)
    return outcomes.results(outcome, clock.total(), world.size, prepared.device.name, examples, share)


def _utilization(prepared: Prepared, clock: Clock, world: World) -> Optional[float]:
    """Useful work of all ranks over the matmul rate of all, measured at the same time; None where none was timed."""
    settings, card = prepared.config.device, prepared.device
    session_config = device.session_config(settings, card.card, world.local_size)
    peak = utilization.peak_flops(card.name, card.is_card, settings.peak_tflops, session_config)
    (peaks,) = world.host_allreduce(np.array([peak]))
    sums, seconds = clock.work()
    return ratio(utilization.training_flops(sums, prepared.model), peaks * seconds)


def _repeat_results(output_dir: str, past: Past, journal: Journal) -> None:
    journal.say(f"{output_dir} holds this run, finished at update {past.step}; choose another to train anew")
    journal.say(outcomes.row(past.results))


def _model_dir(config: Config, world: World) -> str:
    """Where Estimator looks for a checkpoint: a place that never exists for ranks that get root's values."""
    return config.run.output_dir if world.is_root else os.path.join(config.run.output_dir, f"rank-{world.rank}")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what session.run raises for bad records into the one line that says which and why."""
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        explanation = inputs.explain(error)
        if explanation is None:
            raise
        raise explanation from None
