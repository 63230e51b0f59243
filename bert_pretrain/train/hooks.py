"""The one hook of a training session. After each update: time, refuse, report, evaluate, save, stop.

One hook instead of several, so that this order stands in one place. Its input is UpdateValues. --profile_updates has a
hook of its own.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.checkpoints.writer import CheckpointWriter
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput
from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.stop import Interrupted
from bert_pretrain.mlperf import rules
from bert_pretrain.model import variables
from bert_pretrain.run_files import results
from bert_pretrain.run_files.results import Evaluated, Outcome
from bert_pretrain.system.console import log
from bert_pretrain.system.files import plain_name
from bert_pretrain.tensorflow_compat.typed import (
    Coordinator,
    Session,
    SessionRunArgs,
    SessionRunContext,
    SessionRunHook,
    SessionRunValues,
)
from bert_pretrain.train import plan, replay
from bert_pretrain.train.evaluation import Evaluation, is_due
from bert_pretrain.train.forward import Statistics, loss_of, summarize
from bert_pretrain.train.job import Job
from bert_pretrain.train.run_logger import RunLogger, Values
from bert_pretrain.train.throughput import Throughput
from bert_pretrain.train.train_step import UpdateTensors, UpdateValues

UNPROFILED_UPDATES = 3  # updates of a start that are not profiled: they allocate memory, and XLA compiles in them


class TrainingRun(NamedTuple):
    """One start of a run that trains: what its graph, its hook and its results share."""

    job: Job
    previous: PreviousRun
    logger: RunLogger
    training_input: TrainingInput
    evaluation_input: Optional[EvaluationInput]  # None without --do_eval
    writer: Optional[CheckpointWriter]  # None on ranks that write nothing
    throughput: Throughput
    outcome: Outcome


class TrainingHook(SessionRunHook):
    """Acts between the updates of one training session, on every rank alike."""

    def __init__(self, run: TrainingRun, values: UpdateTensors, evaluation: Optional[Evaluation]) -> None:
        """evaluation is None without --do_eval."""
        self._job, self._config = run.job, run.job.config
        self._values, self._training_input, self._evaluation = values, run.training_input, evaluation
        self._writer, self._logger, self._throughput, self._outcome = (
            run.writer,
            run.logger,
            run.throughput,
            run.outcome,
        )
        self._step = 0

    def begin(self) -> None:
        """Once the graph is complete: its variables are what a checkpoint holds."""
        if self._writer:
            self._writer.build(self._job.device.backend)

    def after_create_session(self, session: Session, coord: Coordinator) -> None:
        """Before the first update, untimed: an evaluation that is due, and the device warm-up."""
        self._step = int(session.run(tf.compat.v1.train.get_global_step()))
        if self._writer:
            self._writer.start_at(self._step)
        agreement.end_if_stopped(self._job.world)
        self._logger.mlperf.start_run()
        if self._evaluation and self._outcome.must_evaluate_first and self._is_first_evaluation_wanted():
            self._evaluate_first(self._evaluation, session)
        if self._step and self._is_target_reached():
            coord.request_stop()
            return
        if self._config.device.enable_device_warmup:
            self._warm_up(session)
            agreement.end_if_stopped(self._job.world)
        self._throughput.start()

    def before_run(self, run_context: SessionRunContext) -> SessionRunArgs:
        """Fetches UpdateValues in the same session.run as the update."""
        self._logger.mlperf.start_block(self._step)
        return SessionRunArgs(self._values)

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Everything that follows an update, in order."""
        update = UpdateValues(*run_values.results)
        self._step = int(update.step)
        self._job.world.stop.has_updates = True
        self._throughput.add_update(Statistics(*update.statistics), float(update.input_wait_seconds))
        with self._throughput.paused():
            if not update.is_finite:
                self._refuse(run_context.session, update)
                return
            self._report(update)
            if self._evaluation and self._is_evaluation_due():
                self._evaluate(self._evaluation, run_context.session)
            self._save(run_context.session, self._step % self._config.run.save_checkpoints_steps == 0)
            self._stop_if_requested(run_context, update)

    def end(self, session: Session) -> None:
        """After the last update: evaluates and saves unless that was done after this very update."""
        outcome = self._outcome
        if self._evaluation and outcome.latest_update != self._step and outcome.end != results.INTERRUPTED:
            self._evaluate(self._evaluation, session)
        if self._is_target_reached():
            outcome.end = results.TARGET_REACHED
        outcome.step = self._step
        self._logger.mlperf.end_run(self._step, outcome.end)
        self._save_last(session)
        if outcome.end == results.INTERRUPTED:
            self._logger.info(f"stopped by a signal after update {self._step}; the same command continues")

    def _is_first_evaluation_wanted(self) -> bool:
        """MLPerf's clock runs during evaluations, and its rules skip the one of the initial weights."""
        return self._step > 0 or self._config.mlperf.verify_init or not self._config.mlperf.mlperf

    def _evaluate_first(self, evaluation: Evaluation, session: Session) -> None:
        settings = self._config.mlperf
        evaluated = self._evaluate(evaluation, session)
        if evaluated is None:
            raise Interrupted
        if self._step == 0 and settings.verify_init:
            check = partial(rules.check_initial, settings, evaluated)
            self._logger.info(agreement.on_all_ranks(self._job.world, check))
        if self._step:
            self._save(session, is_due=False)

    def _warm_up(self, session: Session) -> None:
        """Computes an update without its assignments, then rewinds the input to where it stood."""
        session.run(self._values.gradient_norm)
        session.run(self._training_input.initializer)
        self._logger.info("device warm-up: one update computed, nothing changed")

    def _refuse(self, session: Session, update: UpdateValues) -> None:
        """Reports a gradient with inf or NaN, which moved no weight. Ends the run where no lower loss scale is left."""
        if update.loss_scale > 1.0:
            self._logger.info(
                f"update {self._step + 1} skipped: its gradient is not finite at loss scale {update.loss_scale:g}"
            )
            return
        records = self._job.world.allgather(self._training_input.record_names(int(update.updates_read)))
        # The other ranks wait for the checkpoint: mpirun ends all where one of them exits.
        message = agreement.from_root(self._job.world, lambda: self._write_refused(session, update, records))
        if not self._job.world.is_root:
            sys.exit(2)  # rank 0 prints the message
        raise ValueError(message)

    def _write_refused(self, session: Session, update: UpdateValues, records: list[list[str]]) -> str:
        """Saves the weights and describes the update for --replay_update. Returns the message that ends the run."""
        job, names = self._job, list(variables.variable_shapes(self._job.model))
        bad_weight = replay.first_bad_weight(session, names)
        if bad_weight is None and self._step:  # before the first update, the initial weights are at hand
            self._save_last(session)
        description = replay.RefusedUpdate(
            update=self._step + 1,
            position=int(update.updates_read),
            loss_scale=float(update.loss_scale),
            first_bad_variable=names[int(np.argmin(np.isfinite(update.square_norms)))],
            checkpoint=f"model.ckpt-{self._step}" if self._step else None,
            ranks=job.world.size,
            settings=replay.settings_of_update(self._config),
            data=job.training_source.index.fingerprint,
            records=records,
        )
        loss = loss_of(Statistics(*update.statistics), self._config.optim.next_sentence_weight)
        return replay.refuse_update(self._config.run.output_dir, description, loss, bad_weight)

    def _report(self, update: UpdateValues) -> None:
        run, logger, num_updates = self._config.run, self._logger, self._config.optim.num_train_steps
        is_point = self._step % run.save_summary_steps == 0
        is_shown = self._step % run.display_loss_steps == 0 or self._step == num_updates
        values = (
            _training_values(update, self._config.optim.next_sentence_weight)
            if is_point or is_shown or logger.has_bar
            else {}
        )
        if logger.has_bar:
            speed = self._throughput.latest().examples_per_second
            logger.show_progress(self._step, {**values, "examples_per_second": speed})
        if is_point:
            logger.add_events("train", self._step, values)
        if is_shown:
            values.update(self._throughput.recent()._asdict(), peak_memory_bytes=results.peak_memory_bytes())
            logger.record("train", self._step, self._job.update_sizes.total(self._step), values)
            logger.info_values(f"update {self._step}/{num_updates}", values)
        if self._throughput.num_timed == plan.TIMED_UPDATES and self._step < num_updates:
            logger.info(plan.remaining_time(self._job, self._step, self._throughput.total(), self._outcome.latest))

    def _is_evaluation_due(self) -> bool:
        run = self._config.run
        return is_due(self._step, self._job.update_sizes, run.samples_start_eval, run.samples_between_eval)

    def _evaluate(self, evaluation: Evaluation, session: Session) -> Optional[Evaluated]:
        """What was measured; None where a signal has ended it."""
        logger, outcome, step = self._logger, self._outcome, self._step
        logger.mlperf.start_evaluation(step)
        evaluated = evaluation.run(session)
        if evaluated is None:
            outcome.end = results.INTERRUPTED
            return None
        if step == 0:
            outcome.initial = evaluated
        outcome.latest, outcome.latest_update = evaluated, step
        values = {**evaluated.metrics, "eval_examples": evaluated.num_examples, "seconds": evaluated.seconds}
        logger.record("eval", step, self._job.update_sizes.total(step), values)
        logger.add_events("eval", step, evaluated.metrics)
        logger.info_values(f"evaluation after update {step}, {evaluated.num_examples} examples:", evaluated.metrics)
        for line in logger.mlperf.end_evaluation(step, evaluated.metrics["masked_lm_accuracy"]):
            logger.info(line)
        if step > 0 and self._is_target_reached():
            logger.mlperf.end_run(step, results.TARGET_REACHED)
        return evaluated

    def _save(self, session: Session, is_due: bool) -> None:
        """Saves if that is due, or if the evaluation after this update is the best so far."""
        if self._writer:
            self._writer.save(session, self._step, is_due, self._outcome.accuracy_after(self._step))

    def _save_last(self, session: Session) -> None:
        """Saves and waits for the write. ValueError if it failed."""
        if self._writer:
            self._save(session, is_due=True)
            self._writer.finish()
            self._outcome.checkpoint_pauses = self._writer.pauses

    def _stop_if_requested(self, run_context: SessionRunContext, update: UpdateValues) -> None:
        outcome, is_last = self._outcome, self._step == self._config.optim.num_train_steps
        if update.stop_requests and not (is_last and self._evaluation is None):
            outcome.end = results.INTERRUPTED
        if outcome.end == results.INTERRUPTED or self._is_target_reached():
            run_context.request_stop()

    def _is_target_reached(self) -> bool:
        accuracy, threshold = self._outcome.accuracy_after(self._step), self._config.run.stop_threshold
        return accuracy is not None and accuracy >= threshold > 0


def _training_values(update: UpdateValues, next_sentence_weight: float) -> Values:
    sums = Statistics(*update.statistics)
    return {
        "loss": loss_of(sums, next_sentence_weight),
        **summarize(sums),
        "learning_rate": float(update.learning_rate),
        "gradient_norm": float(update.gradient_norm),
        "loss_scale": float(update.loss_scale),
    }


class ProfileHook(SessionRunHook):
    """Profiles num_updates updates after the first few of a start. What goes wrong with it ends no run."""

    def __init__(self, output_dir: str, num_updates: int, throughput: Throughput) -> None:
        """The profile is written to output_dir/plugins/profile."""
        self._output_dir, self._num_updates = output_dir, num_updates
        self._throughput = throughput
        self._num_done = 0
        self._is_active = False
        self._plain_name = contextlib.ExitStack()  # TensorFlow writes to it at the end

    def before_run(self, run_context: SessionRunContext) -> None:
        """Begins before the first update that is profiled."""
        if self._num_done == UNPROFILED_UPDATES:
            with self._throughput.paused():
                self._is_active = self._succeeds(self._start)

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Writes the profile after the last one."""
        self._num_done += 1
        if self._num_done == UNPROFILED_UPDATES + self._num_updates:
            with self._throughput.paused():
                self._stop()

    def end(self, session: Session) -> None:
        """Writes what there is where training ends earlier."""
        if self._num_done <= UNPROFILED_UPDATES:
            log.info(f"note: --profile_updates: no profile: this start had only {self._num_done} updates")
        self._stop()

    def _start(self) -> None:
        tf.profiler.experimental.start(self._plain_name.enter_context(plain_name(self._output_dir)))

    def _stop(self) -> None:
        if self._is_active and self._succeeds(tf.profiler.experimental.stop):
            log.info(
                f"profile of {self._num_done - UNPROFILED_UPDATES} updates written to "
                f"{self._output_dir}/plugins/profile; "
                f"tensorboard --logdir={self._output_dir} shows it"
            )
        self._is_active = False
        self._plain_name.close()

    def _succeeds(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except (tf.errors.OpError, OSError) as error:
            log.info(f"note: --profile_updates: no profile: {' '.join(str(error).split())}")
            return False
        return True
