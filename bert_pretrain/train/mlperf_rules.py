"""A run compared with MLPerf's rules.

Rules: mlcommons/training_policies, training_rules.adoc. The convergence of the reference implementation is in
bert_pretrain/mlperf_reference.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from bert_pretrain.config.mlperf import MlperfConfig
from bert_pretrain.run_files.results import Evaluated
from bert_pretrain.train.job import Job

EVAL_EXAMPLES = 10_000
INIT_TOLERANCE = 0.001  # float16 and other kernels change the third digit of a percent; a wrong restore, percents
_BERT_LARGE = {"vocab_size": 30522, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}


def evaluation_interval(batch: int) -> int:
    """Training samples between evaluations: FLOOR(0.05 * (230.23 * batch + 3,000,000), 25,000)."""
    return int(0.05 * (230.23 * batch + 3_000_000) / 25_000) * 25_000


def deviations(job: Job) -> Iterator[str]:
    """What the closed division does not allow and no checker sees, a line each."""
    config, interval = job.config, evaluation_interval(job.examples_per_update)
    examples, lengths = job.evaluation.index.num_records, job.training.lengths
    shape = {name: getattr(job.model, name) for name in _BERT_LARGE}
    for is_right, found, wanted in (
        (shape == _BERT_LARGE, f"the model has {_listed(shape)}", f"BERT-large has {_listed(_BERT_LARGE)}"),
        (lengths.seq_length == 512, f"records have {lengths.seq_length} tokens", "MLPerf's have 512"),
        (examples == EVAL_EXAMPLES, f"{examples:,} evaluation examples", f"MLPerf has {EVAL_EXAMPLES:,}"),
        (bool(config.run.init_checkpoint), "no --init_checkpoint", "runs start from model.ckpt-28252"),
        (
            config.run.samples_between_eval == interval and config.run.samples_start_eval in (0, interval),
            f"evaluations every {config.run.samples_between_eval:,} samples from {config.run.samples_start_eval:,} on",
            f"the rule for batch {job.examples_per_update:,} is --samples_between_eval={interval} "
            f"--samples_start_eval={interval}",
        ),
        (not config.masking.dynamic_masking, "--dynamic_masking", "the reference trains on the masks of the records"),
        (config.optim.clip_norm == 1.0, f"--clip_norm={config.optim.clip_norm:g}", "the reference clips to 1"),
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
