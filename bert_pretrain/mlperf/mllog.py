"""mllog.txt, MLPerf's log of a run, as mlperf_logging's compliance checker expects it. Only this file imports that.

A timed run cannot be resumed. The log of an interrupted run ends with the status `aborted`, and a start that continues
the run adds nothing to it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Optional

from bert_pretrain.mlperf import rules
from bert_pretrain.mlperf.rules import TimedRun
from bert_pretrain.run_files import results
from bert_pretrain.run_files.report_file import AppendedFile
from bert_pretrain.system.files import open_itself, open_regular

_FILE = "mllog.txt"


class MlperfLog:
    """A log without effect: without --mlperf, on other ranks than 0, and in a resumed run."""

    def start_run(self) -> None:
        """Initialization is over; from here on data is read and time counts."""

    def start_block(self, update: int) -> None:
        """Training goes on after `update`, until the next evaluation. Does nothing while it goes on."""

    def start_evaluation(self, update: int) -> None:
        """An evaluation begins."""

    def end_evaluation(self, update: int, accuracy: Optional[float]) -> Iterator[str]:
        """An evaluation has ended. Yields a line that compares the run with the reference's."""
        yield from ()

    def end_run(self, update: int, end: str) -> None:
        """Time stops; `end` is that of results.json."""

    def close(self) -> None:
        """Ends the log of a run that was interrupted by an exception."""


class _WrittenLog(MlperfLog):
    """The log of one run."""

    def __init__(self, run: TimedRun, logger: Any) -> None:
        """logger is an mlperf_logging.mllog.MLLogger, which has no types."""
        self._run, self._log = run, logger
        self._is_running = self._is_in_block = False
        self._reference = rules.reference_convergence(_required_library(), run.update_sizes.full)

    def describe(self, begin: float, is_cache_cleared: bool) -> None:
        """Submission, initialization since `begin` (seconds since the epoch), and settings."""
        log, run = self._log, self._run
        for key, value in _submission(run).items():
            log.event(f"submission_{key}", value)
        log.event("cache_clear", is_cache_cleared)
        log.start("init_start", time_ms=int(begin * 1000))
        log.event("seed", self._run.config.run.seed)
        for key, value in _hyperparameters(run).items():
            log.event(key, value)

    def start_run(self) -> None:
        self._log.end("init_stop")
        self._log.start("run_start")
        self._is_running = True

    def start_block(self, update: int) -> None:
        if self._is_running and not self._is_in_block:
            samples, run = self._samples(update), self._run.config.run
            is_before_first = samples < run.samples_start_eval
            count = run.samples_start_eval - samples if is_before_first else run.samples_between_eval
            self._log.start("block_start", metadata={"first_epoch_num": samples, "epoch_count": count})
            self._is_in_block = True

    def start_evaluation(self, update: int) -> None:
        if self._is_running:
            self._end_block(update)
            self._log.start("eval_start", metadata={"epoch_num": self._samples(update)})

    def end_evaluation(self, update: int, accuracy: Optional[float]) -> Iterator[str]:
        if self._is_running:
            samples = self._samples(update)
            self._log.event("eval_accuracy", accuracy, metadata={"epoch_num": samples})
            self._log.end("eval_stop", metadata={"epoch_num": samples})
            yield self._reference.standing(samples, accuracy)

    def end_run(self, update: int, end: str) -> None:
        if self._is_running:
            self._end_block(update)
            samples, has_target = self._samples(update), self._run.config.run.stop_threshold > 0
            is_successful = end == results.TARGET_REACHED or (end == results.COMPLETED and not has_target)
            self._log.event("trained_samples", samples)
            self._stop("success" if is_successful else "aborted")

    def close(self) -> None:
        if self._is_running:
            self._stop("aborted")

    def _end_block(self, update: int) -> None:
        if self._is_in_block:
            self._log.end("block_stop", metadata={"first_epoch_num": self._samples(update)})
            self._is_in_block = False

    def _stop(self, status: str) -> None:
        _log_stop(self._log, status)
        self._is_running = False

    def _samples(self, update: int) -> int:
        """The unit in which MLPerf reports BERT's progress, in place of epochs."""
        return self._run.update_sizes.total(update)


def open_mllog(
    run: TimedRun, begin: float, shards: Collection[str], is_root: bool, is_first_of_host: bool, is_resumed: bool
) -> MlperfLog:
    """The log of a run that started at `begin`. A log without effect without --mlperf, and on other ranks than 0.

    shards: paths of all data. ValueError where the library is not installed or the file cannot be written.
    """
    if not run.config.mlperf.mlperf:
        return MlperfLog()
    _required_library()
    path = os.path.join(run.config.run.output_dir, _FILE)
    if is_resumed:
        if is_root:
            _abort(path)
        return MlperfLog()
    is_cache_cleared = _clear_cache(shards) if is_first_of_host else False
    if not is_root:
        return MlperfLog()
    log = _WrittenLog(run, _open_file(path, "w"))
    log.describe(begin, is_cache_cleared)
    return log


class _AppendToFile(logging.Handler):
    """Writes each message as a line, later where the disk is full."""

    def __init__(self, path: str, mode: str) -> None:
        super().__init__()
        with open(path, mode, encoding="utf-8", opener=open_itself):  # "w" empties the file
            self._file = AppendedFile(path)

    def emit(self, record: logging.LogRecord) -> None:
        self._file.append(f"{record.getMessage()}\n".encode())

    def close(self) -> None:
        self._file.close()
        super().close()


def _required_library() -> Path:
    """The folder of mlperf_logging. ValueError where it is not installed."""
    found = rules.installed_library()
    if found is None:
        raise ValueError("--mlperf needs the package mlperf-logging: bash init_tf.sh --mlperf")
    return found


def _open_file(path: str, mode: str) -> Any:
    """An MLLogger that writes to a file alone. Files of this project are named from its root."""
    from mlperf_logging.mllog.mllog import MLLogger

    logger = logging.Logger("mllog")
    try:
        logger.addHandler(_AppendToFile(path, mode))
    except OSError as error:
        raise ValueError(f"--output_dir: {path} cannot be written: {error.strerror}") from None
    return MLLogger(logger, root_dir=re.escape(str(Path(__file__).parents[2])))


def _log_stop(log: Any, status: str) -> None:
    log.end("run_stop", metadata={"status": status})


def _abort(path: str) -> None:
    """Ends the log of a run that was killed."""
    try:
        with open_regular(path) as file:
            text = file.read()
    except FileNotFoundError:
        return
    if '"run_start"' in text and '"run_stop"' not in text:
        _log_stop(_open_file(path, "a"), "aborted")


def _clear_cache(shards: Collection[str]) -> bool:
    """Drops the shards' pages from this host's page cache, which needs no rights; MLPerf asks for a flushed cache."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in set(shards):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _submission(run: TimedRun) -> dict[str, str]:
    """What the checker asks for of a submission; BERT is not submitted any more."""
    division = run.config.mlperf.mlperf_division
    return {"benchmark": "bert", "division": division, "org": "unnamed", "platform": run.system, "status": "onprem"}


def _hyperparameters(run: TimedRun) -> dict[str, Any]:
    """The data and the hyperparameters, by the keys that the checker knows."""
    optim, data = run.config.optim, run.config.data
    most = data.max_eval_steps * data.eval_batch_size
    optimizer = f"opt_{'adamw' if optim.optimizer_type == 'adam' else optim.optimizer_type}"
    decay = f"{optimizer}_weight_decay_rate" if optimizer == "opt_lamb" else f"{optimizer}_weight_decay"
    return {
        "train_samples": run.num_train_records,
        "eval_samples": min(run.num_eval_records, most) if most else run.num_eval_records,
        "max_sequence_length": run.seq_length,
        "global_batch_size": run.update_sizes.full,
        "gradient_accumulation_steps": optim.num_accumulation_steps,
        "opt_name": optimizer[len("opt_") :],
        "opt_base_learning_rate": run.peak_learning_rate,
        "opt_end_learning_rate": 0.0,
        "opt_learning_rate_training_steps": optim.num_train_steps,
        "opt_learning_rate_warmup_steps": optim.num_warmup_steps,
        "num_warmup_steps": optim.num_warmup_steps,
        "start_warmup_step": optim.start_warmup_step,
        f"{optimizer}_epsilon": optim.epsilon,
        f"{optimizer}_beta_1": optim.beta_1,
        f"{optimizer}_beta_2": optim.beta_2,
        decay: optim.weight_decay_rate,
    }
