"""--profile_updates: a profile of a few updates for TensorBoard."""

from __future__ import annotations

from typing import Callable

import tensorflow as tf
from tensorflow.compat.v1 import train

from bert_pretrain.train.throughput import Throughput

WARM_UP = 3  # updates of a start that are not profiled: they allocate memory, and XLA compiles in them


class ProfileHook(train.SessionRunHook):
    """Profiles num_updates updates after the first few of a start. What goes wrong with it ends no run."""

    def __init__(self, output_dir: str, num_updates: int, throughput: Throughput, info: Callable[[str], None]) -> None:
        """The profile is written to output_dir/plugins/profile; info prints a line."""
        self._output_dir, self._num_updates = output_dir, num_updates
        self._throughput, self._info = throughput, info
        self._num_done = 0
        self._is_active = False

    def before_run(self, run_context: train.SessionRunContext) -> None:
        """Begins before the first update that is profiled."""
        if self._num_done == WARM_UP:
            with self._throughput.paused():
                self._is_active = self._succeeds(lambda: tf.profiler.experimental.start(self._output_dir))

    def after_run(self, run_context: train.SessionRunContext, run_values: train.SessionRunValues) -> None:
        """Writes the profile after the last one."""
        self._num_done += 1
        if self._num_done == WARM_UP + self._num_updates:
            with self._throughput.paused():
                self._stop()

    def end(self, session: tf.compat.v1.Session) -> None:
        """Writes what there is where training ends earlier."""
        if self._num_done <= WARM_UP:
            self._info(f"note: --profile_updates: no profile: this start had only {self._num_done} updates")
        self._stop()

    def _stop(self) -> None:
        if self._is_active and self._succeeds(tf.profiler.experimental.stop):
            self._info(
                f"profile of {self._num_done - WARM_UP} updates written to {self._output_dir}/plugins/profile; "
                f"tensorboard --logdir={self._output_dir} shows it"
            )
        self._is_active = False

    def _succeeds(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except (tf.errors.OpError, OSError) as error:
            self._info(f"note: --profile_updates: no profile: {' '.join(str(error).split())}")
            return False
        return True
