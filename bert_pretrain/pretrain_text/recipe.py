"""The choice of a recipe: pure arithmetic from text, machine and time. docs/pretrain_text.md explains the rules.

Sources of the rules:
- Devlin et al. 2018 (BERT, arXiv:1810.04805): 40 epochs, 256 sequences an update, mostly 128 tokens, 10,000 updates of
  warm-up at most.
- Hoffmann et al. 2022 (arXiv:2203.15556): about 20 tokens of training for each weight.
- Izsak et al. 2021 (arXiv:2104.07705), Geiping and Goldstein 2022 (arXiv:2212.14034): 128 tokens where time is short.
- You et al. 2020 (LAMB, arXiv:1904.00962), table 4: a rate of 5e-3 at 32,768 examples, and the square-root rule.
- docs/recipes.md: what small models learn most from, measured here.
- README.md of google-research/bert: a smaller rate than 1e-4 to continue a model on a domain, such as 2e-5, in its
  example with 32 examples an update. The square-root rule for larger batches is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.model_sizes import SIZES, flops_per_example, layer_parameters

# Assumptions, not measurements: they only choose the size of the model. The number of updates follows from a measured
# speed. The embedded demo reaches about twice the figure of a core (docs/performance.md).
FLOPS_PER_CORE, FLOPS_PER_GPU = 5e10, 3e13

SEQ_LENGTH = 128
MAX_EPOCHS = 40
_TOKENS_PER_WEIGHT = 20
_NIGHT_HOURS, _DAY_HOURS = 8.0, 24.0
_MIN_HOURS = 0.05
_TOKENS_PER_HOUR = 1.2e6  # of text, for which an hour is given
# New models up to this size are trained as docs/recipes.md found best; larger ones as their papers say.
_MEASURED_LAYERS, _MEASURED_HIDDEN = 4, 512
_MEASURED_BATCH, _MEASURED_UPDATES = 16, 4000
_MASKED_SHARE = 0.3  # of the tokens in training; held-out records keep 15 %
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 256
_LARGEST_MICRO_BATCH = 32
_UPDATES_FOR_LARGER_BATCHES = 1000  # updates there are at least before the batch is doubled
_MAX_WARMUP = 10_000
_NUM_EVALUATIONS = 5
_COST_OF_EVALUATION = 1 / 3  # of an example, relative to training
_EVALUATION_SHARE = 0.05  # of the training examples in each evaluation: a tenth of the time for five
_MIN_EVALUATION = 4 * 64
_EVAL_BATCH = 64
_TRAINING_SHARE = 0.85  # of the time; evaluations, start and export take the rest
_CHECKPOINT_SECONDS = 300


class Corpus(NamedTuple):
    """The shards."""

    num_records: int
    num_tokens: int  # in these records, without padding
    num_eval_records: int
    seq_length: int = SEQ_LENGTH  # of a record

    @property
    def tokens_per_record(self) -> float:
        """Mean length."""
        return self.num_tokens / max(1, self.num_records)


class Machine(NamedTuple):
    """What computes, over all hosts."""

    num_ranks: int
    num_cores: int
    num_gpus: int

    @property
    def flops(self) -> float:
        """Assumed FLOP/s of training."""
        return self.num_gpus * FLOPS_PER_GPU if self.num_gpus else self.num_cores * FLOPS_PER_CORE


def default_hours(corpus: Corpus, machine: Machine) -> float:
    """Minutes for a small folder; at most a night on CPUs and a day on GPUs."""
    most = _DAY_HOURS if machine.num_gpus else _NIGHT_HOURS
    return min(most, max(_MIN_HOURS, corpus.num_tokens / _TOKENS_PER_HOUR))


def choose_model(corpus: Corpus, machine: Machine, hours: float, vocab_size: int) -> ModelConfig:
    """The largest size that sees about 20 tokens for each weight of its layers, within the time and 40 epochs."""
    sizes = [size.config(vocab_size) for size in SIZES.values()]
    for config in reversed(sizes):
        cost = flops_per_example(config, corpus.tokens_per_record)
        examples = min(MAX_EPOCHS * corpus.num_records, machine.flops * hours * 3600 / cost)
        if examples * corpus.tokens_per_record >= _TOKENS_PER_WEIGHT * layer_parameters(config):
            return config
    return sizes[0]


def assumed_speed(config: ModelConfig, corpus: Corpus, machine: Machine) -> float:
    """Examples a second, where nothing was measured."""
    return machine.flops / flops_per_example(config, max(1.0, corpus.tokens_per_record))


def data_flags(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of make_data, with the user's: one pass, because masks are drawn anew at each visit of a record."""
    flags: dict[str, Any] = {"max_seq_length": SEQ_LENGTH, "dupe_factor": 1, "masked_lm_prob": 0.15, **explicit}
    slots = math.ceil(flags["max_seq_length"] * flags["masked_lm_prob"])
    return {**flags, "max_predictions_per_seq": explicit.get("max_predictions_per_seq", max(1, slots))}


def training_flags(
    corpus: Corpus,
    machine: Machine,
    model: ModelConfig,
    hours: float,
    speed: float,
    is_continued: bool,
    explicit: Mapping[str, Any],
) -> dict[str, Any]:
    """Flags of bert_pretrain.run that say how it is trained, with the user's.

    speed: examples a second over all ranks, measured. What the user gives changes what follows from it: with
    --num_train_steps, for example, the warm-up is a tenth of these updates.
    """
    is_small = not is_continued and is_measured(model)
    smallest = _MEASURED_BATCH if is_small else _SMALLEST_BATCH
    budget = hours * 3600 * speed  # examples
    evaluations = (_NUM_EVALUATIONS + 2) * _MIN_EVALUATION * _COST_OF_EVALUATION
    examples = max(0.0, min(MAX_EPOCHS * corpus.num_records, _TRAINING_SHARE * budget, budget - evaluations))
    if "num_train_steps" in explicit:  # the batch then does not depend on a measurement
        examples = explicit["num_train_steps"] * smallest
    flags: dict[str, Any] = {**micro_batches(examples, machine, is_small, explicit)}
    batch = machine.num_ranks * flags["train_batch_size"] * flags["num_accumulation_steps"]
    flags["num_train_steps"] = updates = explicit.get("num_train_steps", _round_down(examples / batch))
    flags["num_warmup_steps"] = min(_MAX_WARMUP, updates // 10)
    flags["dynamic_masking"] = explicit.get("dynamic_masking", True)
    if is_small:
        flags.update(_objective_of_small_models(corpus, flags["dynamic_masking"], explicit))
    default = "adamw" if is_small else "adam" if is_continued else "lamb"
    flags["optimizer_type"] = optimizer = explicit.get("optimizer_type", default)
    if optimizer == "adamw":
        flags.update(beta_2=0.98, lr_schedule="linear")
    if "learning_rate" not in explicit:
        flags["learning_rate"] = learning_rate(batch, updates, optimizer, is_continued, model)
    flags["lr_scaling"] = "none"
    flags.update(_evaluation(corpus, batch, updates, explicit))
    flags["save_checkpoints_steps"] = max(1, min(updates, round(_CHECKPOINT_SECONDS * speed / batch)))
    flags["display_loss_steps"] = max(1, updates // 50)
    flags["save_summary_steps"] = max(1, updates // 200)
    return {**flags, **explicit}


def is_measured(model: ModelConfig) -> bool:
    """True for models up to the largest size in docs/recipes.md, which has 2 x 256 and 4 x 512."""
    return model.num_hidden_layers <= _MEASURED_LAYERS and model.hidden_size <= _MEASURED_HIDDEN


def _objective_of_small_models(corpus: Corpus, is_dynamic: bool, explicit: Mapping[str, Any]) -> dict[str, Any]:
    flags: dict[str, Any] = {"initialization": "informed", "next_sentence_weight": 0.0}
    if is_dynamic:
        flags["masked_lm_prob"] = share = explicit.get("masked_lm_prob", _MASKED_SHARE)
        flags["max_masked_tokens"] = math.ceil(share * corpus.seq_length)
    return flags


def micro_batches(examples: float, machine: Machine, is_small: bool, explicit: Mapping[str, Any]) -> dict[str, int]:
    """train_batch_size and num_accumulation_steps for so many examples in all; is_small: for a model of that kind."""
    smallest, enough = (
        (_MEASURED_BATCH, _MEASURED_UPDATES) if is_small else (_SMALLEST_BATCH, _UPDATES_FOR_LARGER_BATCHES)
    )
    doublings = math.log2(max(1.0, examples / (enough * smallest)))
    batch = min(_LARGEST_BATCH, smallest * 2 ** int(doublings))
    per_rank = max(1, batch // machine.num_ranks)
    if "train_batch_size" in explicit:
        size = explicit["train_batch_size"]
        return {"train_batch_size": size, "num_accumulation_steps": explicit.get("num_accumulation_steps", 1)}
    steps = explicit.get("num_accumulation_steps", math.ceil(per_rank / _LARGEST_MICRO_BATCH))
    return {"train_batch_size": max(1, per_rank // steps), "num_accumulation_steps": steps}


def learning_rate(batch: int, updates: int, optimizer: str, is_continued: bool, model: ModelConfig) -> float:
    """The peak.

    AdamW: 0.002 for models of up to 256 units and 16 examples an update, 0.001 for wider ones, as docs/recipes.md
    found; larger batches by the square root, at most half as much again, which is our choice.
    LAMB: 0.01 for at most 1,000 updates, then falling with their square root to the published value; what lies between
    was not measured.
    """
    published = 5e-3 * math.sqrt(batch / 32_768)
    if optimizer not in ("lamb", "adam", "adamw") or (optimizer == "adamw" and not is_measured(model)):
        raise ValueError(
            f"--optimizer_type={optimizer}: no recipe says its learning rate for this model; give --learning_rate"
        )
    if is_continued and optimizer != "lamb":
        return _two_digits(2e-5 * math.sqrt(batch / 32))
    if optimizer == "adamw":
        return _two_digits((2e-3 if model.hidden_size <= 256 else 1e-3) * min(1.5, math.sqrt(max(1, batch / 16))))
    if optimizer == "adam":
        return 1e-4
    if is_continued:
        return _two_digits(published)
    return _two_digits(max(published, 1e-2 * math.sqrt(1000 / max(updates, 1000))))


def expected_seconds(corpus: Corpus, flags: Mapping[str, Any], machine: Machine, speed: float) -> float:
    """Of training and evaluations, at a measured speed of examples a second; an evaluation costs a third."""
    batch = machine.num_ranks * flags["train_batch_size"] * flags["num_accumulation_steps"]
    limit = flags["max_eval_steps"] * flags["eval_batch_size"] or corpus.num_eval_records
    num_evaluations = 2 + flags["num_train_steps"] * batch // max(1, flags["samples_between_eval"])
    return (
        flags["num_train_steps"] * batch + num_evaluations * min(limit, corpus.num_eval_records) * _COST_OF_EVALUATION
    ) / speed


def _evaluation(corpus: Corpus, batch: int, updates: int, explicit: Mapping[str, Any]) -> dict[str, Any]:
    wanted = max(_MIN_EVALUATION, int(_EVALUATION_SHARE * batch * updates))
    eval_batch = explicit.get("eval_batch_size", _EVAL_BATCH)
    return {
        "eval_batch_size": eval_batch,
        "max_eval_steps": 0 if wanted >= corpus.num_eval_records else math.ceil(wanted / eval_batch),
        "samples_start_eval": 0,
        "samples_between_eval": math.ceil(updates / _NUM_EVALUATIONS) * batch,
        "stop_threshold": 0.0,
    }


def _round_down(number: float) -> int:
    """Two significant digits, at least 10: two measurements of nearly the same speed give the same recipe."""
    size = 10 ** max(0, int(math.log10(max(1.0, number))) - 1)
    return max(10, int(number) // size * size)


def _two_digits(number: float) -> float:
    return float(f"{number:.2g}")
