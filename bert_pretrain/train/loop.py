"""The life of a run: prepare, continue or start, train or evaluate, leave results. Every rank walks it together."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any, Optional

import tensorflow as tf

from bert_pretrain.config.training import Config
from bert_pretrain.data import input_fn as inputs
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.model import variables
from bert_pretrain.train import checkpoints, device, preflight, run_file
from bert_pretrain.train import outcome as outcomes
from bert_pretrain.train.clock import Clock
from bert_pretrain.train.evaluation import Evaluation
from bert_pretrain.train.hooks import Surroundings
from bert_pretrain.train.job import Job
from bert_pretrain.train.journal import Journal
from bert_pretrain.train.model_fn import Parts, make_model_fn
from bert_pretrain.train.outcome import Outcome
from bert_pretrain.train.prepare import Prepared, describe, prepare
from bert_pretrain.train.stop import StopRequest
from bert_pretrain.world import World, connect


def run(config: Config, given: set[str]) -> int:
    """Does what the settings ask for; returns the exit code. `given` names the flags that the person set.

    ValueError, one line, for anything that is wrong with the input.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    world = connect(config.run.horovod)
    prepared = preflight.together(world, lambda: prepare(config, given, world))
    facts = describe(prepared, world)
    preflight.together(world, lambda: preflight.check_alike(world, facts))
    preflight.together(world, lambda: run_file.check_same_run(config.run.output_dir, facts))
    run_settings = config.run
    journal = Journal(
        run_settings.output_dir,
        run_settings.dllog_path,
        config.optim.num_train_steps,
        run_settings.report_loss,
        world.is_root,
    )
    job = Job(config, prepared.model, world, prepared.device.compute_dtype)
    try:
        _introduce(prepared, job, journal)
        if _is_finished(prepared):
            _repeat_results(prepared, journal)
            return 0
        if world.is_root:
            run_file.save(run_settings.output_dir, facts)
        with _explained():
            results = _train(prepared, job, journal) if run_settings.do_train else _evaluate(prepared, job, journal)
        if world.is_root:
            outcomes.write(run_settings.output_dir, "results.json", results)
            journal.say(outcomes.row(results))
    finally:
        journal.close()
    world.close()
    return 0


def _introduce(prepared: Prepared, job: Job, journal: Journal) -> None:
    """The plan in a few lines, before anything takes time."""
    config, ranks = prepared.config, job.world.size
    for notice in prepared.device.notices:
        journal.say(f"note: {notice}")
    journal.say(
        f"model: {variables.num_parameters(prepared.model):,} parameters; device: {prepared.device.name} x{ranks}, "
        f"{prepared.device.compute_dtype.name}"
    )
    if config.run.verbose_logging:
        for name, shape in variables.shapes(prepared.model).items():
            journal.say(f"variable {name} {list(shape)}")
    if config.run.do_train:
        journal.say(
            f"training data: {prepared.training.index.num_records:,} records; an update has {job.batch_examples} "
            f"examples: {ranks} ranks x {config.optim.num_accumulation_steps} micro-batches x "
            f"{config.data.train_batch_size}"
        )
        if prepared.checkpoint:
            journal.say(f"continuing {prepared.checkpoint} at update {prepared.step}")


def _train(prepared: Prepared, job: Job, journal: Journal) -> dict[str, Any]:
    """Trains from the newest checkpoint, or the start, to the end; gives the results."""
    config, world = prepared.config, job.world
    training_input = TrainingInput(
        prepared.training,
        config.examples_per_rank(),
        config.data.train_batch_size,
        config.data.pack_sequences,
        config.data.data_seed,
        first_update=checkpoints.position_of(prepared.checkpoint),
        rank=world.rank,
        num_ranks=world.size,
    )
    outcome, clock, stop = Outcome(), Clock(), StopRequest()
    parts = Parts(
        training_input,
        _evaluation_input(prepared, job),
        None if prepared.checkpoint else config.run.init_checkpoint,
        stop,
        Surroundings(clock, journal, outcome, training_input.record_names),
    )
    with stop.listening(), _model_dir(config, world) as model_dir:
        estimator = tf.estimator.Estimator(
            make_model_fn(job, parts),
            model_dir,
            tf.estimator.RunConfig(
                # This project's one hook saves, logs and counts; Estimator's own would do it on every rank.
                save_checkpoints_steps=None,
                save_checkpoints_secs=None,
                save_summary_steps=None,
                log_step_count_steps=None,
                session_config=device.session_config(config.device, world.local_rank),
            ),
        )
        estimator.train(training_input, hooks=world.hooks(), max_steps=config.optim.num_train_steps)
    examples = outcome.step * job.batch_examples
    return outcomes.results(outcome, clock.total(), world.size, prepared.device.name, examples)


def _evaluate(prepared: Prepared, job: Job, journal: Journal) -> dict[str, Any]:
    """Evaluates one checkpoint's weights; gives the results, with what training left there if it was its checkpoint."""
    config = prepared.config
    prefix = config.run.eval_checkpoint_path or prepared.checkpoint or config.run.init_checkpoint
    if prefix is None:
        raise ValueError(
            f"--do_eval: {config.run.output_dir} holds no checkpoint; give --eval_checkpoint_path or --init_checkpoint"
        )
    flag = "eval_checkpoint_path" if config.run.eval_checkpoint_path else "init_checkpoint"
    checkpoints.check_model(prefix, flag, variables.shapes(prepared.model))
    with tf.Graph().as_default():
        weights = variables.create(prepared.model, config.run.seed)
        evaluation = Evaluation(weights, _evaluation_input(prepared, job), job)
        saver = tf.compat.v1.train.Saver(weights)
        session_config = device.session_config(config.device, job.world.local_rank)
        with tf.compat.v1.Session(config=session_config) as session:
            saver.restore(session, prefix)
            latest = evaluation.run(session)
    step = checkpoints.step_of(prefix)
    journal.record("eval", step, step * job.batch_examples, latest.metrics)
    journal.line(f"evaluation of {prefix}, {latest.num_examples} examples:", latest.metrics)
    earlier = outcomes.read(config.run.output_dir)
    if earlier and prefix == prepared.checkpoint and earlier["updates"] == step:
        return {**earlier, **outcomes.evaluated(latest)}
    rates = Clock().total()
    return outcomes.results(Outcome(step=step, latest=latest), rates, job.world.size, prepared.device.name, 0)


def _evaluation_input(prepared: Prepared, job: Job) -> Optional[EvaluationInput]:
    """This rank's slice of the evaluation set, or all of it where root evaluates alone."""
    data, world = prepared.config.data, job.world
    if prepared.evaluation is None:
        return None
    limit = data.max_eval_steps * data.eval_batch_size or None
    share = (world.rank, world.size) if prepared.config.run.is_dist_eval_enabled else (0, 1)
    return EvaluationInput(prepared.evaluation, data.eval_batch_size, data.pack_sequences, limit, *share)


def _is_finished(prepared: Prepared) -> bool:
    """True where training is done and its results are written."""
    results = outcomes.read(prepared.config.run.output_dir)
    if not prepared.config.run.do_train or results is None or results["updates"] != prepared.step:
        return False
    target_stands = results["target_reached"] and _target(results) >= prepared.config.run.stop_threshold > 0
    return prepared.step >= prepared.config.optim.num_train_steps or target_stands


def _target(results: dict) -> float:
    return results["masked_lm_accuracy"] or 0.0


def _repeat_results(prepared: Prepared, journal: Journal) -> None:
    output_dir = prepared.config.run.output_dir
    journal.say(f"{output_dir} holds this run, finished at update {prepared.step}; choose another to train anew")
    journal.say(outcomes.row(outcomes.read(output_dir)))


@contextlib.contextmanager
def _model_dir(config: Config, world: World) -> Iterator[str]:
    """Where Estimator looks for a checkpoint: output_dir for root, an empty place for ranks that get root's values."""
    if world.is_root:
        yield config.run.output_dir
    else:
        with tempfile.TemporaryDirectory(prefix="bert_pretrain-rank-") as directory:
            yield directory


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
