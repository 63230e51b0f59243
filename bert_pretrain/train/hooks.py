"""What surrounds the updates: one hook, so that the order of its duties stands in one place.

After each update: time it, refuse it if it is not finite, report, evaluate, save, stop. The hook reads one dictionary
of tensors made by model_fn and looks none up by name.
"""

from __future__ import annotations

import os
import sys
from typing import Callable, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.training import RunConfig
from bert_pretrain.train import results as outcomes
from bert_pretrain.train.evaluation import Evaluation, is_due
from bert_pretrain.train.forward import Statistics
from bert_pretrain.train.job import Job
from bert_pretrain.train.metrics import summarize
from bert_pretrain.train.results import Outcome
from bert_pretrain.train.run_logger import Journal
from bert_pretrain.train.throughput import Clock
from bert_pretrain.train.train_step import Watched


class Surroundings(NamedTuple):
    """The plain objects that the hook works with."""

    clock: Clock
    journal: Journal
    outcome: Outcome
    record_names: Callable[[int], list[str]]  # position -> this rank's records


class Saver:
    """Writes checkpoints whole or not at all, and keeps the newest few."""

    def __init__(self, run: RunConfig) -> None:
        self._run = run
        self._saver = tf.compat.v1.train.Saver(
            max_to_keep=run.keep_checkpoint_max, save_relative_paths=True, sharded=False
        )
        self.saved_step = -1

    @property
    def saver(self) -> tf.compat.v1.train.Saver:
        """For the Scaffold, so that what is saved is what is restored."""
        return self._saver

    def save(self, session: tf.compat.v1.Session, step: int) -> None:
        """Saves unless this step is saved already."""
        if step == self.saved_step:
            return
        prefix = os.path.join(self._run.output_dir, "model.ckpt")
        try:
            self._saver.save(session, prefix, global_step=step, write_meta_graph=False)
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise ValueError(
                f"--output_dir: checkpoint {prefix}-{step} cannot be written: {str(error).splitlines()[0]}; "
                f"earlier checkpoints are untouched"
            ) from None
        self.saved_step = step


class TrainingHook(tf.estimator.SessionRunHook):
    """Surrounds the updates of one training session."""

    def __init__(
        self,
        job: Job,
        watched: Watched,
        variable_names: list[str],
        evaluation: Optional[Evaluation],
        saver: Optional[Saver],
        warm_up: Callable[[tf.compat.v1.Session], None],
        surroundings: Surroundings,
    ) -> None:
        """Without an evaluation nothing is evaluated; the saver is None on ranks that write nothing."""
        self._job = job
        self._config = job.config
        self._watched = watched
        self._variable_names = variable_names
        self._evaluation = evaluation
        self._saver = saver
        self._warm_up = warm_up
        self._with = surroundings
        self._step = 0

    def after_create_session(self, session: tf.compat.v1.Session, coord: tf.train.Coordinator) -> None:
        """Before the first update: a first evaluation and the device warm-up, both outside the clock."""
        self._step = int(session.run(tf.compat.v1.train.get_global_step()))
        if self._saver:
            self._saver.saved_step = self._step if self._step else -1
        if self._evaluation and self._step == 0:
            self._evaluate(session)
        if self._config.device.enable_device_warmup:
            self._warm_up(session)
            self._with.journal.say("device warm-up: one update computed, nothing changed")
        self._with.clock.start()

    def before_run(self, run_context: tf.estimator.SessionRunContext) -> tf.estimator.SessionRunArgs:
        """Asks for the watched tensors; they come from the same session.run as the update."""
        return tf.estimator.SessionRunArgs(self._watched)

    def after_run(self, run_context: tf.estimator.SessionRunContext, run_values: tf.estimator.SessionRunValues) -> None:
        """The duties after an update, in order."""
        update = Watched(*run_values.results)
        self._step = int(update.step)
        self._with.clock.tick(Statistics(*update.statistics), float(update.input_wait_seconds))
        with self._with.clock.paused():
            if not update.finite:
                self._refuse(update)
                return
            self._report(update)
            if self._evaluation and self._is_evaluation_due():
                self._evaluate(run_context.session)
            if self._step % self._config.run.save_checkpoints_steps == 0:
                self._save(run_context.session)
            self._stop_if_asked(run_context, update)

    def end(self, session: tf.compat.v1.Session) -> None:
        """After the last update: evaluate what was not, save what was not."""
        outcome = self._with.outcome
        if self._evaluation and outcome.latest_update != self._step and outcome.end != outcomes.INTERRUPTED:
            self._evaluate(session)
        if self._is_target_reached():
            outcome.end = outcomes.TARGET_REACHED
        outcome.step = self._step
        self._save(session)

    def _is_evaluation_due(self) -> bool:
        run = self._config.run
        return is_due(self._step, self._job.batch_examples, run.samples_start_eval, run.samples_between_eval)

    def _report(self, update: Watched) -> None:
        run, journal = self._config.run, self._with.journal
        journal.progress(self._step)
        is_last = self._step == self._config.optim.num_train_steps
        shown = self._step % run.display_loss_steps == 0 or is_last
        if not shown and self._step % run.save_summary_steps:
            return
        values = _training_values(update)
        if self._step % run.save_summary_steps == 0:
            journal.events("train", self._step, values)
        if shown:
            values.update(self._with.clock.recent()._asdict())
            journal.record("train", self._step, self._step * self._job.batch_examples, values)
            journal.line(f"update {self._step}/{self._config.optim.num_train_steps}", values)

    def _evaluate(self, session: tf.compat.v1.Session) -> None:
        journal, outcome = self._with.journal, self._with.outcome
        evaluated = self._evaluation.run(session)
        if self._step == 0:
            outcome.initial = evaluated
        outcome.latest, outcome.latest_update = evaluated, self._step
        values = {**evaluated.metrics, "eval_examples": evaluated.num_examples, "seconds": evaluated.seconds}
        journal.record("eval", self._step, self._step * self._job.batch_examples, values)
        journal.events("eval", self._step, evaluated.metrics)
        journal.line(f"evaluation after update {self._step}, {evaluated.num_examples} examples:", evaluated.metrics)

    def _save(self, session: tf.compat.v1.Session) -> None:
        if self._saver:
            self._saver.save(session, self._step)

    def _stop_if_asked(self, run_context: tf.estimator.SessionRunContext, update: Watched) -> None:
        if update.stop_requested:
            self._with.outcome.end = outcomes.INTERRUPTED
            self._with.journal.say(f"stopped by a signal after update {self._step}; the same command continues")
        if update.stop_requested or self._is_target_reached():
            run_context.request_stop()

    def _is_target_reached(self) -> bool:
        outcome, threshold = self._with.outcome, self._config.run.stop_threshold
        if not threshold or outcome.latest_update != self._step:
            return False
        accuracy = outcome.latest.metrics["masked_lm_accuracy"]
        return accuracy is not None and accuracy >= threshold

    def _refuse(self, update: Watched) -> None:
        """A gradient with infinities or NaN moved nothing; at loss scale 1 there is no remedy left but to stop."""
        if update.loss_scale > 1.0:
            self._with.journal.say(
                f"update {self._step + 1} skipped: its gradient is not finite at loss scale {update.loss_scale:g}"
            )
            return
        bad = self._variable_names[int(np.argmin(np.isfinite(update.square_norms)))]
        names = self._job.world.allgather(self._with.record_names(int(update.position)))
        if not self._job.world.is_root:
            sys.exit(2)  # root tells it
        records = [name for of_rank in names for name in of_rank]
        raise ValueError(
            f"update {self._step + 1}: the gradient is not finite, first at {bad} (loss {_loss(update):g}); its "
            f"records are {', '.join(records)}. Weights are those of update {self._step}; the last checkpoint stays. "
            f"A lower --learning_rate or longer --num_warmup_steps may help"
        )


def _training_values(update: Watched) -> dict[str, Optional[float]]:
    return {
        "loss": _loss(update),
        **summarize(Statistics(*update.statistics)),
        "learning_rate": float(update.learning_rate),
        "gradient_norm": float(update.gradient_norm),
        "loss_scale": float(update.loss_scale),
    }


def _loss(update: Watched) -> float:
    metrics = summarize(Statistics(*update.statistics))
    return (metrics["masked_lm_loss"] or 0.0) + (metrics["next_sentence_loss"] or 0.0)
