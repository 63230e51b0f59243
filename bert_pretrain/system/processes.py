"""What the launcher and schedulers tell a process of a job by its environment: its rank, the number of ranks.

Standard library only: run.py asks for the rank before it imports TensorFlow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Optional

# Environment variables of Open MPI, of MPICH and Slurm (PMI), and of horovodrun --gloo.
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "HOROVOD_SIZE")
# Set by Kubeflow's TFJob and PyTorchJob, SageMaker, Vertex AI and others, for ways of training that are not ours.
_SCHEDULERS = ("TF_CONFIG", "CLUSTER_SPEC", "WORLD_SIZE", "MASTER_ADDR")


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
