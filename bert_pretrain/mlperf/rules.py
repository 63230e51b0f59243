"""A run compared with MLPerf's rules and with its reference implementation, whose runs mlperf_logging brings.

Rules: mlcommons/training_policies, training_rules.adoc. v5.0 is the last round of MLPerf Training with BERT.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.rampup import UpdateSizes
from bert_pretrain.config.training import MLPERF_TARGET, Config, MlperfConfig
from bert_pretrain.run_files.results import Evaluated

EVAL_EXAMPLES = 10_000
INIT_TOLERANCE = 0.001  # float16 and other kernels change the third digit of a percent; a wrong restore, percents
_BERT_LARGE = {"vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
RULESET = "5.0.0"


def evaluation_interval(batch: int) -> int:
    """Training samples between evaluations: FLOOR(0.05 * (230.23 * batch + 3,000,000), 25,000)."""
    return int(0.05 * (230.23 * batch + 3_000_000) / 25_000) * 25_000


def find_deviations(run: TimedRun) -> Iterator[str]:
    """What the closed division does not allow and no checker sees, a line each."""
    config, batch, examples = run.config, run.update_sizes.full, run.num_eval_records
    interval = evaluation_interval(batch)
    shape = {name: getattr(run.model, name) for name in _BERT_LARGE}
    for is_right, found, wanted in (
        (shape == _BERT_LARGE, f"the model has {_listed(shape)}", f"BERT-large has {_listed(_BERT_LARGE)}"),
        (run.seq_length == 512, f"records have {run.seq_length} tokens", "MLPerf's have 512"),
        (examples == EVAL_EXAMPLES, f"{examples:,} evaluation examples", f"MLPerf has {EVAL_EXAMPLES:,}"),
        (bool(config.run.init_checkpoint), "no --init_checkpoint", "runs start from model.ckpt-28252"),
        (
            config.run.samples_between_eval == interval and config.run.samples_start_eval in (0, interval),
            f"evaluations every {config.run.samples_between_eval:,} samples from {config.run.samples_start_eval:,} on",
            f"the rule for batch {batch:,} is --samples_between_eval={interval} --samples_start_eval={interval}",
        ),
        (not config.masking.dynamic_masking, "--dynamic_masking", "the reference trains on the masks of the records"),
        (config.optim.clip_norm == 1.0, f"--clip_norm={config.optim.clip_norm:g}", "the reference clips to 1"),
        (
            config.optim.next_sentence_weight == 1.0,
            f"--next_sentence_weight={config.optim.next_sentence_weight:g}",
            "the reference adds up both losses",
        ),
        (
            config.optim.lr_schedule == "polynomial",
            f"--lr_schedule={config.optim.lr_schedule}",
            "the reference decays from update 0 on",
        ),
        (
            config.data.rampup_batch_size is None,
            f"--rampup_batch_size={config.data.rampup_batch_size}",
            "the reference has one batch size",
        ),
        (
            config.data.rampup_seq_length is None,
            f"--rampup_seq_length={config.data.rampup_seq_length}",
            "the reference trains on whole records",
        ),
        (config.optim.poly_power == 1.0, f"--poly_power={config.optim.poly_power:g}", "the reference decays linearly"),
    ):
        if not is_right:
            yield f"--mlperf_division=closed: {found}; {wanted}"


def check_initial(config: MlperfConfig, evaluated: Evaluated) -> str:
    """What --verify_init found before training. ValueError where it is not what was expected."""
    found = evaluated.metrics["masked_lm_accuracy"]
    expected = f"{config.init_accuracy:g} +- {INIT_TOLERANCE:g}"
    if found is None or not abs(found - config.init_accuracy) <= INIT_TOLERANCE:
        raise ValueError(
            f"--verify_init: the masked-LM accuracy before training is {found} on {evaluated.num_examples:,} examples, "
            f"expected {expected} (--init_accuracy); check --init_checkpoint, --bert_config_file and --eval_files_dir"
        )
    return f"--verify_init: the masked-LM accuracy before training is {found:.5f}, expected {expected}"


def _listed(shape: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in shape.items())


class TimedRun(NamedTuple):
    """What MLPerf's rules and log say of a run."""

    config: Config
    model: ModelConfig
    system: str  # device and number of ranks
    peak_learning_rate: float
    update_sizes: UpdateSizes
    seq_length: int  # tokens of a record
    num_train_records: int
    num_eval_records: int


class ReferenceConvergence(NamedTuple):
    """Samples that the reference implementation needs to TARGET, interpolated between the batches of its runs."""

    batch: int  # examples of an update
    mean: float
    deviation: float

    def standing(self, samples: int, accuracy: Optional[float]) -> str:
        """One line: where a run stands that has `accuracy` after `samples` training samples."""
        needs = f"the reference needs {self.mean:,.0f} +- {self.deviation:,.0f} at batch {self.batch:,}"
        if (accuracy or 0.0) < MLPERF_TARGET:
            return f"MLPerf: {samples:,} samples, {samples / self.mean:.0%} of the way to {MLPERF_TARGET}; {needs}"
        deviations = (samples - self.mean) / self.deviation
        return (
            f"MLPerf: {MLPERF_TARGET} reached after {samples:,} samples; {needs}, {deviations:+.1f} standard deviations"
        )


def installed_library() -> Optional[Path]:
    """The folder of mlperf_logging, None where it is not installed."""
    found = importlib.util.find_spec("mlperf_logging")
    folders = found.submodule_search_locations if found else None
    return Path(folders[0]) if folders else None


def reference_convergence(folder: Path, batch: int) -> ReferenceConvergence:
    """The reference's convergence at a batch size; beyond the smallest and the largest batch, theirs.

    `folder` is mlperf_logging's. As its rcp_checker does, the mean leaves out the fastest and the slowest run.
    """
    points = json.loads((folder / "rcp_checker" / f"training_{RULESET}" / "rcps_bert.json").read_text(encoding="utf-8"))
    runs = {point["BS"]: sorted(point["Epochs to converge"]) for point in points.values()}
    sizes = sorted(runs)
    nearest = min(max(batch, sizes[0]), sizes[-1])
    mean = np.interp(nearest, sizes, [np.mean(runs[size][1:-1]) for size in sizes])
    return ReferenceConvergence(
        nearest, float(mean), float(np.interp(nearest, sizes, [np.std(runs[size]) for size in sizes]))
    )
