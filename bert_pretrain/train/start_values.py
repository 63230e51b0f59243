"""What a run's variables start from: a checkpoint, computed values, or random ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.checkpoints import restore
from bert_pretrain.checkpoints.restore import StartValues
from bert_pretrain.model import variables
from bert_pretrain.train.job import Job


def find_start_values(
    job: Job, weights: Mapping[str, tf.Variable], continued: Optional[str], published: Optional[str] = None
) -> tuple[Mapping[str, StartValues], Optional[str]]:
    """The variables of the default graph that do not start at random, and a line for the user.

    Root's alone count: the other ranks receive its variables. Arguments and errors as of restore.find_start_values.
    """
    found = restore.find_start_values(job.config.run, weights, continued, published)
    if found.stored or job.config.run.initialization == "google":
        return found.stored, found.report
    counts = job.training_source.count_predicted_tokens()
    values = _InformedValues(variables.informed_values(job.model, counts))
    report = f"initialization: informed, by the frequencies of {counts.sum():,} tokens of a sample of the records"
    return dict.fromkeys(values.of_variable, values), report


class _InformedValues(NamedTuple):
    """StartValues that are computed."""

    of_variable: dict[str, np.ndarray]

    def get_tensor(self, variable: str) -> np.ndarray:
        return self.of_variable[variable]
