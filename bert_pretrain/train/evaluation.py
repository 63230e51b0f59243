"""Evaluation on a finite set: every example once, numerators and denominators summed over ranks.

During training, the evaluation network is part of the training graph and reads the same variables, so an evaluation
neither restarts the training input nor copies a weight. `evaluate_alone` and `conclude_training` evaluate a checkpoint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.config.rampup import UpdateSizes
from bert_pretrain.data.input_fn import EvaluationInput
from bert_pretrain.data.schema import BatchTensors
from bert_pretrain.data.vocab import rare_token_ids
from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.stop import Interrupted
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.protocol import make_kernels
from bert_pretrain.model import variables
from bert_pretrain.run_files import results, run_json
from bert_pretrain.run_files.results import Evaluated, Outcome
from bert_pretrain.system.locks import TRAINING, DirectoryLock, HeldError
from bert_pretrain.tensorflow_compat.typed import Coordinator, Session
from bert_pretrain.train import device, forward
from bert_pretrain.train.forward import Statistics, ratio, summarize
from bert_pretrain.train.job import Job, evaluation_input
from bert_pretrain.train.run_logger import RunLogger
from bert_pretrain.train.throughput import Throughput

# Between two exchanges in which the ranks agree to go on. Horovod reports ranks that wait longer than a minute.
_SECONDS_BETWEEN_EXCHANGES = 1.0


class Evaluation:
    """The evaluation network in the default graph."""

    def __init__(self, job: Job, weights: Mapping[str, tf.Variable], source: EvaluationInput) -> None:
        features, self._rewind = source.tensors()
        batch = BatchTensors(*(features[name] for name in BatchTensors._fields))
        # XLA gains little in a forward pass, and compiling for each new shape costs more than that.
        backend = Backend.PLAIN if job.device.backend.is_compiled else job.device.backend
        found = forward.forward_pass(
            weights,
            batch,
            job.model,
            make_kernels(backend),
            precision=job.device.precision,
            next_sentence=job.config.optim.next_sentence_weight > 0,
        )
        # Sums of a batch are float32; the sums over batches are float64 on the host.
        self._sums = tf.stack(found.statistics)
        vocab_size = job.model.vocab_size
        self._token_counts = tf.math.bincount(batch.masked_ids, minlength=vocab_size)
        self._token_hits = tf.math.unsorted_segment_sum(found.masked_lm_hits, batch.masked_ids, vocab_size)
        self._num_sums, self._vocab_size = len(Statistics._fields), vocab_size
        self._num_examples = source.num_examples
        self._world = job.world
        self._is_root_alone = not job.config.run.is_dist_eval_enabled and job.world.size > 1

    def run(self, session: Session) -> Optional[Evaluated]:
        """Evaluates the session's weights; None if a rank was asked to stop before all were done. A collective."""
        begin = time.monotonic()
        totals = np.zeros(self._num_sums + 2 * self._vocab_size)
        is_idle = self._is_root_alone and not self._world.is_root
        batches = iter(()) if is_idle else self._batch_sums(session)
        while True:
            is_done = _add_batches(totals, batches)
            ranks = self._world.allgather((is_done, self._world.stop.requested))
            if all(is_done for is_done, _ in ranks):
                break
            if any(is_stop_requested for _, is_stop_requested in ranks):
                return None
        return self._evaluated(self._world.host_allreduce(totals), time.monotonic() - begin)

    def _evaluated(self, totals: np.ndarray, seconds: float) -> Evaluated:
        sums = Statistics(*totals[: self._num_sums])
        token_counts, token_hits = np.split(totals[self._num_sums :], 2)
        num_examples = round(sums.examples)
        assert num_examples == self._num_examples, f"evaluated {num_examples} examples of {self._num_examples}"
        rare = rare_token_ids(token_counts)
        metrics = {
            **summarize(sums),
            "masked_lm_accuracy_rare": ratio(token_hits[rare].sum(), token_counts[rare].sum()),
            "most_frequent_token": ratio(token_counts.max(), token_counts.sum()),
        }
        return Evaluated(metrics, num_examples, seconds)

    def _batch_sums(self, session: Session) -> Iterator[np.ndarray]:
        """[10 + 2V] float64 for each batch of this rank: Statistics, then masked tokens and hits by token id."""
        session.run(self._rewind)
        while True:
            try:
                yield np.concatenate(session.run([self._sums, self._token_counts, self._token_hits]))
            except tf.errors.OutOfRangeError:
                return


def _add_batches(totals: np.ndarray, batches: Iterator[np.ndarray]) -> bool:
    """Adds the sums of the batches of about a second. Returns True when there are no more."""
    end = time.monotonic() + _SECONDS_BETWEEN_EXCHANGES
    for sums in batches:
        totals += sums
        if time.monotonic() >= end:
            return False
    return True


def is_due(step: int, sizes: UpdateSizes, start: int, between: int) -> bool:
    """True when the update that made `step` crossed a multiple of `between` examples, counted from `start`.

    A pure function of the step, so that a resumed run evaluates after the same updates as an uninterrupted one.
    """

    def evaluations(updates: int) -> int:
        examples = sizes.total(updates)
        return 0 if examples < start else (examples - start) // between + 1

    return step > 0 and evaluations(step) > evaluations(step - 1)


def num_due(first: int, last: int, sizes: UpdateSizes, start: int, between: int) -> int:
    """Updates after `first`, up to `last`, for which is_due holds."""
    return sum(
        _num_due(stop - begin, sizes.total(begin), size, start, between)
        for begin, stop, size in sizes.between(first, last)
    )


def _num_due(num_updates: int, num_before: int, size: int, start: int, between: int) -> int:
    """The same of num_updates updates of `size` examples each, after num_before examples."""
    if between > size:

        def evaluations(examples: int) -> int:
            return max(0, (examples - start) // between + 1)

        return evaluations(num_before + num_updates * size) - evaluations(num_before)
    waiting = max(0, -(-(start - num_before) // size) - 1)  # updates before the first evaluation; then one after each
    return max(0, num_updates - waiting)


def is_evaluation_done(job: Job, previous: PreviousRun) -> bool:
    """True where --do_eval asks for nothing, or for what the run has measured after its last update."""
    if job.evaluation is None:
        return True
    latest = previous.latest if previous.is_evaluated else None
    return latest is not None and latest.num_examples == evaluation_input(job).num_examples


def conclude_training(job: Job, previous: PreviousRun, logger: RunLogger) -> dict[str, Any]:
    """The content of results.json of a run that has nothing left to train; evaluates if that is still to be done.

    The rates that training left in results.json stay, if they belong to the last checkpoint.
    """
    run = job.config.run
    outcome = Outcome(step=previous.step, initial=previous.initial, latest=previous.latest)
    if not is_evaluation_done(job, previous):
        assert previous.checkpoint is not None, "a run that has trained has a checkpoint"
        outcome.latest = latest = _evaluate_checkpoint(job, previous.checkpoint)
        logger.forget(lambda kind, update: (kind, update) == ("eval", previous.step))
        _report_evaluation(job, logger, "eval", previous.step, latest, previous.checkpoint)
        if previous.latest_update != previous.step:
            logger.add_events("eval", previous.step, latest.metrics)
    if outcome.latest and (outcome.latest.metrics["masked_lm_accuracy"] or 0.0) >= run.stop_threshold > 0:
        outcome.end = results.TARGET_REACHED
    if previous.results and previous.results["updates"] == previous.step:
        return {**previous.results, **results.evaluation_fields(outcome.latest), **results.end_fields(outcome)}
    return _content(job, outcome, job.update_sizes.total(previous.step))


def evaluate_alone(job: Job, previous: PreviousRun, logger: RunLogger) -> None:
    """Evaluates a checkpoint and prints the results; writes them unless a training job uses output_dir meanwhile."""
    prefix, step = agreement.from_root(job.world, lambda: _checkpoint_to_evaluate(job, previous))
    latest = _evaluate_checkpoint(job, prefix)
    run = previous.description if prefix == previous.checkpoint else None  # run.json, where the checkpoint is the run's
    num_examples = run_json.update_sizes_of(run).total(step) if run else 0
    initial = previous.initial if run else None
    content = _content(job, Outcome(step=step, initial=initial, latest=latest), num_examples)
    lock = _lock_unless_training(job, logger)
    if lock:
        logger.forget(lambda kind, update: (kind, update) == ("eval_alone", step))
        content = _merged(job.config.run.output_dir, prefix, content, logger)
    _report_evaluation(job, logger, "eval_alone" if lock else None, step, latest, prefix)
    if lock:
        lock.release()
    logger.info(results.results_row(content))


def _lock_unless_training(job: Job, logger: RunLogger) -> Optional[DirectoryLock]:
    """The lock on rank 0, for as long as it writes; None on other ranks and where a job trains in output_dir."""
    if not job.world.is_root:
        return None
    try:
        return DirectoryLock(job.config.run.output_dir, TRAINING, logger.info)
    except HeldError as error:
        logger.info(f"note: the results are printed but not written: {error}")
        return None


def _merged(output_dir: str, prefix: str, content: dict[str, Any], logger: RunLogger) -> dict[str, Any]:
    """Writes results.json: what training left there stays, except for an older evaluation of the same checkpoint."""
    trained = results.read_results(output_dir) if os.path.exists(os.path.join(output_dir, run_json.RUN_JSON)) else None
    if trained is None:
        logger.write_json(results.RESULTS_JSON, content)
    elif trained["updates"] == content["updates"] and os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(
        output_dir
    ):
        content = {**trained, **{name: content[name] for name in results.evaluation_fields(None)}}
        logger.write_json(results.RESULTS_JSON, content)
    else:
        logger.info(f"note: {results.RESULTS_JSON} stays that of the run, which is at update {trained['updates']}")
    return content


def _content(job: Job, outcome: Outcome, num_examples: int) -> dict[str, Any]:
    return results.results_content(outcome, Throughput().total(), job.world.size, job.device.name, num_examples, None)


def _report_evaluation(
    job: Job, logger: RunLogger, kind: Optional[str], step: int, latest: Evaluated, prefix: str
) -> None:
    if kind:
        values = {**latest.metrics, "eval_examples": latest.num_examples, "seconds": latest.seconds}
        logger.record(kind, step, job.update_sizes.total(step), values)
    logger.info_values(f"evaluation of {prefix}, {latest.num_examples} examples:", latest.metrics)


def _checkpoint_to_evaluate(job: Job, previous: PreviousRun) -> tuple[str, int]:
    """Prefix and step of a checkpoint that holds the model. ValueError where there is none."""
    run = job.config.run
    prefix = run.eval_checkpoint_path or previous.checkpoint or previous.weights or run.init_checkpoint
    if prefix is None:
        raise ValueError(
            f"--do_eval: {run.output_dir} holds no checkpoint; give --eval_checkpoint_path or --init_checkpoint"
        )
    flag = "eval_checkpoint_path" if run.eval_checkpoint_path else "init_checkpoint"
    prefix = restore.resolve_prefix(prefix)
    restore.check_model(prefix, flag, variables.variable_shapes(job.model))
    return prefix, restore.step_of(prefix)


def _evaluate_checkpoint(job: Job, prefix: str) -> Evaluated:
    """Loads the checkpoint on rank 0, broadcasts it, evaluates on all ranks. Interrupted if a signal ended that."""
    with tf.Graph().as_default():
        weights = variables.create_variables(job.model, job.config.run.seed)
        evaluation = Evaluation(job, weights, evaluation_input(job))
        hooks = job.world.hooks()
        stored = (
            restore.load_init_checkpoint(prefix, weights, {}, allow_partial=False).stored if job.world.is_root else {}
        )
        for hook in hooks:
            hook.begin()
        session_config = device.session_config(job.config.device, job.device.gpu, job.world.local_size)
        with Session(config=session_config) as session:
            restore.initialize_variables(session, stored)
            for hook in hooks:
                hook.after_create_session(session, Coordinator())
            evaluated = evaluation.run(session)
    if evaluated is None:
        raise Interrupted
    return evaluated
