"""Saves checkpoints while training goes on: takes a snapshot of the variables, writes and checks it on a thread.

There is one snapshot at a time: a save waits for the write before it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import checkpoint_files, restore
from bert_pretrain.config.training import RunConfig
from bert_pretrain.kernels.backend import Backend
from bert_pretrain.kernels.snapshot import Snapshot, take_snapshots
from bert_pretrain.system import files
from bert_pretrain.system.console import log
from bert_pretrain.tensorflow_compat.typed import ConfigProto, Session

BEST = "best"  # directory in output_dir
_BEST_FILE = "evaluation.json"


class CheckpointWriter:
    """Writes the checkpoints of one run; a context whose end waits for the last write. Only root has one."""

    def __init__(
        self,
        run: RunConfig,
        kept: Sequence[str],
        on_written: Optional[Callable[[str], None]] = None,
    ) -> None:
        """kept: this run's earlier checkpoints, oldest first.

        on_written(prefix) is called, on the thread, for each checkpoint that is whole, those in best/ included.
        """
        self._run, self._kept, self._on_written = run, list(kept), on_written
        self._best_directory = os.path.join(run.output_dir, BEST)
        self._best = _read_best(self._best_directory)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write_in_progress: Optional[Future[Optional[str]]] = None
        self._num_failed = 0  # in a row
        self.saved_step = -1  # of the newest checkpoint; -1 before the first
        self.pauses: list[float] = []  # seconds for which each save stopped training

    def build(self, backend: Backend) -> None:
        """Adds what takes snapshots to the default graph, and makes the session that writes them."""
        variables = {one.op.name: one for one in tf.compat.v1.global_variables()}
        self._snapshot = take_snapshots({name: variables[name] for name in sorted(variables)}, backend)
        self._bundle = _Bundle(sorted(variables), self._snapshot)

    def start_at(self, step: int) -> None:
        """Before the first update: what a start at this step has restored needs no save."""
        self.saved_step = step or -1

    @property
    def is_writing(self) -> bool:
        """True while a write is in progress."""
        return self._write_in_progress is not None and not self._write_in_progress.done()

    def save(self, session: Session, step: int, is_due: bool = True, accuracy: Optional[float] = None) -> None:
        """After each update: saves if that is due, or if the accuracy evaluated after this update is the best so far.

        ValueError once --max_failed_checkpoints in a row could not be written.
        """
        if not self.is_writing:
            self._collect()
        if not is_due and accuracy is None:
            return
        begin = time.monotonic()
        self._collect()
        best = accuracy if accuracy is not None and (self._best is None or accuracy > self._best) else None
        if best is None and (not is_due or step == self.saved_step):
            return
        values = self._snapshot.take(session) if step != self.saved_step else None
        self._write_in_progress = self._executor.submit(self._write, step, values, best)
        self.pauses.append(time.monotonic() - begin)

    def finish(self) -> None:
        """Waits for the last write. ValueError if it failed."""
        self._collect(is_last=True)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.shutdown(wait=True)

    def _collect(self, is_last: bool = False) -> None:
        """Waits for the write in progress, if there is one, and takes note of how it ended."""
        write, self._write_in_progress = self._write_in_progress, None
        problem = write.result() if write else None
        if problem is None:
            self._num_failed = 0 if write else self._num_failed
            return
        self._num_failed += 1
        if is_last or self._num_failed >= self._run.max_failed_checkpoints:
            raise ValueError(f"--output_dir: {problem}; earlier checkpoints are untouched")
        log.warning(
            f"warning: {problem}; training goes on, the next one is tried "
            f"({self._num_failed} of --max_failed_checkpoints={self._run.max_failed_checkpoints} failed)"
        )

    def _write(self, step: int, values: Optional[dict[tf.Tensor, np.ndarray]], best: Optional[float]) -> Optional[str]:
        """On the thread: writes the checkpoint, links it into best/. Returns the problem, or None."""
        prefix = target = checkpoint_files.prefix_of(self._run.output_dir, step)
        try:
            if values is not None:
                restore.keep_published(prefix)
                with checkpoint_files.publishing(prefix) as unpublished:
                    self._bundle.write(unpublished, values)
                    values.clear()  # before tensors are read back
                    restore.open_whole(unpublished, "output_dir")
                self._keep(prefix)
                self.saved_step = step
                if self._on_written:
                    self._on_written(prefix)
            if best is not None:
                target = checkpoint_files.prefix_of(self._best_directory, step)
                self._link_best(prefix, best)
                if self._on_written:
                    self._on_written(target)
        except (tf.errors.OpError, OSError, ValueError) as error:
            return f"checkpoint {target} cannot be written: {restore.error_reason(error).rpartition('; ')[2]}"
        return None

    def _keep(self, prefix: str) -> None:
        """Makes the new checkpoint the one to continue; removes the oldest beyond --keep_checkpoint_max."""
        self._kept = [*(one for one in self._kept if one != prefix), prefix]
        num_old = max(0, len(self._kept) - (self._run.keep_checkpoint_max or len(self._kept)))
        old, self._kept = self._kept[:num_old], self._kept[num_old:]
        checkpoint_files.write_state(self._run.output_dir, self._kept)
        for one in old:
            checkpoint_files.remove_checkpoint(one)

    def _link_best(self, prefix: str, accuracy: float) -> None:
        """Makes best/ hold this checkpoint alone."""
        directory, step = self._best_directory, checkpoint_files.step_in_name(prefix)
        os.makedirs(directory, exist_ok=True)
        best = checkpoint_files.prefix_of(directory, step)
        checkpoint_files.link_checkpoint(prefix, best)
        files.write_json(os.path.join(directory, _BEST_FILE), {"update": step, "masked_lm_accuracy": accuracy})
        checkpoint_files.write_state(directory, [best])
        for other in checkpoint_files.prefixes(directory):
            if other != best:
                checkpoint_files.remove_checkpoint(other)
        self._best = accuracy


class _Bundle:
    """Writes tensors to checkpoint files in a session of its own, which leaves training its threads."""

    def __init__(self, names: Sequence[str], values: Snapshot) -> None:
        with tf.Graph().as_default() as graph, tf.device("/cpu:0"):
            self._prefix = tf.compat.v1.placeholder(tf.string, [])
            self._save = tf.raw_ops.SaveV2(
                prefix=self._prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values.tensors()
            )
        config = ConfigProto(device_count={"GPU": 0}, use_per_session_threads=True)
        config.intra_op_parallelism_threads = config.inter_op_parallelism_threads = 1
        self._session = Session(graph=graph, config=config)

    def write(self, prefix: str, values: Mapping[tf.Tensor, np.ndarray]) -> None:
        """Writes `<prefix>.index` and its data from what the snapshot gave. tf.errors.OpError where that fails."""
        self._session.run(self._save, {self._prefix: prefix, **values})


def _read_best(directory: str) -> Optional[float]:
    """The accuracy of the checkpoint in best/, or None without one."""
    try:
        with files.open_regular(os.path.join(directory, _BEST_FILE)) as file:
            content = json.load(file)
        prefix = checkpoint_files.prefix_of(directory, content["update"])
        return float(content["masked_lm_accuracy"]) if checkpoint_files.has_index(prefix) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
