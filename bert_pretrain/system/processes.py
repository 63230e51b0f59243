"""What launchers and schedulers tell a process of a job: its rank and the number of ranks, and by signals to stop.

Standard library only: run.py asks for the rank before it imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Mapping, MutableMapping
from types import FrameType
from typing import Callable, Optional

# Environment variables of Open MPI, of MPICH and Slurm (PMI), and of horovodrun --gloo.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")
# Set by Kubeflow's TFJob and PyTorchJob, SageMaker, Vertex AI and others, for ways of training that are not ours.
_SCHEDULERS = ("TF_CONFIG", "CLUSTER_SPEC", "WORLD_SIZE", "MASTER_ADDR")
# A person, or the end of patience: the second of these ends a process at once.
_URGENT = (signal.SIGTERM, signal.SIGINT)
# The loss of the terminal, and what schedulers send some time before the end (Slurm's --signal=USR1, LSF, Grid Engine).
# They may come several times, as from a terminal and its shell, and before a SIGTERM; they only ask.
_WARNINGS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOP_SIGNALS = (*_URGENT, *_WARNINGS)


def heeded_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask this process to stop: without those that it was started to ignore, as nohup does SIGHUP."""
    ignored = [number for number in _WARNINGS if signal.getsignal(number) is signal.SIG_IGN]
    return tuple(number for number in STOP_SIGNALS if number not in ignored)


def is_urgent(number: int) -> bool:
    """True for a signal whose second coming ends the process at once."""
    return number in _URGENT


@contextlib.contextmanager
def handling_signals(handle: Callable[[int, Optional[FrameType]], object]) -> Iterator[None]:
    """Inside, handle(number, frame) gets the signals that ask this process to stop. Only the main thread may enter."""
    before = {number: signal.signal(number, handle) for number in heeded_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launched_size(environ: Mapping[str, str] = os.environ) -> Optional[int]:
    """The number of processes that the launcher started; None without a launcher. ValueError if it is no number."""
    given = {name: environ[name] for name in _SIZES if name in environ}
    for name, text in given.items():
        if not is_whole_number(text):
            raise ValueError(f"{name}={text} in the environment is not a number of processes; unset it")
    return max(map(int, given.values()), default=None)


def launched_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This process's rank; 0 without a launcher."""
    return next((int(environ[name]) for name in _RANKS if is_whole_number(environ.get(name, ""))), 0)


def is_whole_number(text: str) -> bool:
    """True for a whole number of at most nine digits."""
    return bool(re.fullmatch(r"\d{1,9}", text, re.ASCII))


def forget_schedulers(environ: MutableMapping[str, str] = os.environ) -> Iterator[str]:
    """Removes what schedulers tell TensorFlow about other hosts; a line for rank 0 to print where there was anything.

    tf.estimator reads TF_CONFIG, and its sessions would wait for the servers that are named there.
    """
    found = [name for name in _SCHEDULERS if environ.pop(name, None) is not None]
    if found and launched_rank(environ) == 0:
        yield (
            f"note: {', '.join(found)} in the environment ignored: only mpirun and horovodrun, with --horovod, start "
            f"several ranks"
        )
