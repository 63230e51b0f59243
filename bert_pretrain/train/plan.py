"""What a run is about to do and how long that takes, printed before the start, and which commands follow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.config.option import options_of, with_origins
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.data.shards import shard_files
from bert_pretrain.mlperf import rules
from bert_pretrain.model import variables
from bert_pretrain.optim import schedule
from bert_pretrain.run_files.results import Evaluated, Rates
from bert_pretrain.system.console import duration_text
from bert_pretrain.train.evaluation import is_due, num_due
from bert_pretrain.train.job import Job, timed_run

TIMED_UPDATES = 3  # after which the remaining time is estimated


def plan_lines(job: Job, step: int) -> Iterator[str]:
    """The updates, evaluations and checkpoints that follow update `step`."""
    num_updates, run = job.config.optim.num_train_steps, job.config.run
    if step >= num_updates:
        return
    examples = job.update_sizes.total(num_updates) - job.update_sizes.total(step)
    yield (
        f"plan: {num_updates - step:,} updates with {examples:,} examples, "
        f"{examples / job.training_source.index.num_records:.3g} times the training data; a checkpoint every "
        f"{run.save_checkpoints_steps:,} updates"
    )
    if run.do_eval:
        ends = f"; training ends when one reaches a masked-LM accuracy of {run.stop_threshold:g}"
        yield f"evaluations: {_num_evaluations(job, step):,} to come{ends if run.stop_threshold else ''}"


def remaining_time(job: Job, step: int, rates: Rates, latest: Optional[Evaluated]) -> str:
    """How long the updates after `step` and their evaluations take at the speed of `rates`, of timed updates.

    latest: the last evaluation; None where none has been timed.
    """
    speed, sizes = rates.updates_per_second, job.update_sizes
    assert speed and rates.examples_per_second, "no update was timed"
    seconds = (sizes.total(job.config.optim.num_train_steps) - sizes.total(step)) / rates.examples_per_second
    rest, number = "", _num_evaluations(job, step) if job.config.run.do_eval else 0
    if number and latest and latest.seconds:
        seconds += number * latest.seconds
        rest = f", evaluations ({number:,} of {duration_text(latest.seconds)}) included"
    elif number:
        rest = f", evaluations ({number:,}) not included"
    return f"remaining: about {duration_text(seconds)} at {speed:.3g} updates/s{rest}"


def _num_evaluations(job: Job, step: int) -> int:
    """Evaluations after updates later than `step`, the one at the end included."""
    run, last = job.config.run, job.config.optim.num_train_steps
    schedule = job.update_sizes, run.samples_start_eval, run.samples_between_eval
    return num_due(step, last, *schedule) + (not is_due(last, *schedule))


def next_commands(config: Config, results: dict[str, Any], shards: Sequence[str] = ()) -> Iterator[str]:
    """The commands that follow a run which ended with `results`; shards: its training data."""
    run, output_dir = config.original.run, shlex.quote(config.original.run.output_dir)
    if not run.do_train:
        return
    yield "next:"
    if results["end"] == "interrupted":
        yield "  continue  the same command"
    data = shlex.quote(config.data.eval_files_dir or "EVAL_FILES_DIR")
    vocabulary = shlex.quote(_vocabulary_file(config, shards) or "VOCAB_FILE")
    yield (
        f"  evaluate  python -m bert_pretrain.run --do_eval --bert_config_file={shlex.quote(run.bert_config_file)} "
        f"--eval_files_dir={data} --output_dir={output_dir}"
    )
    if run.hf_dir and results["end"] != "interrupted":
        yield f'  ask       python -m bert_pretrain.fill_mask {_argument(run.hf_dir)} "... [MASK] ..."'
    else:
        yield (
            f"  export    python -m bert_pretrain.export --checkpoint={output_dir}/model.ckpt-{results['updates']} "
            f"--bert_config_file={shlex.quote(run.bert_config_file)} "
            f"--vocab_file={vocabulary} --hf_dir={shlex.quote(config.run.output_dir)}/hugging_face"
        )
    yield f"  report    python -m bert_pretrain.report {_argument(config.original.run.output_dir)}"


def _argument(path: str) -> str:
    """A path as an argument of a command, which must not be taken for a flag."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _vocabulary_file(config: Config, shards: Sequence[str]) -> Optional[str]:
    """The vocabulary that the user, the data or the model's folder name; None where none of them does."""
    beside_model = os.path.join(os.path.dirname(config.run.bert_config_file), "vocab.txt")
    found = config.original.masking.vocab_file or shard_files.vocabulary_file_of(shards)
    return found or (beside_model if os.path.isfile(beside_model) else None)


def summary_lines(job: Job, previous: PreviousRun) -> Iterator[str]:
    """What will be done, and settings that have no effect."""
    config, ranks = job.config, job.world.size
    mlperf = _mlperf_notices(job, previous) if config.mlperf.mlperf else []
    notices = [*job.device.notices, *_unused_flags(config), *_allreduce_notices(job), *mlperf, *previous.notices]
    yield from (f"note: {with_origins(notice, config.flag_origins)}" for notice in notices)
    yield (
        f"model: {variables.num_parameters(job.model):,} parameters; device: {job.device.name} x{ranks}, "
        f"{job.device.compute_dtype.name}, {job.device.backend.value} kernels"
    )
    if config.run.verbose_logging:
        yield from (f"variable {name} {list(shape)}" for name, shape in variables.variable_shapes(job.model).items())
    if not config.run.do_train:
        return
    yield (
        f"training data: {job.training_source.index.num_records:,} records; an update has "
        f"{job.update_sizes.full} examples: {ranks} ranks x {config.optim.num_accumulation_steps} micro-batches x "
        f"{config.data.train_batch_size}"
    )
    if job.update_sizes.rampup:
        sizes, rampup = job.update_sizes, job.update_sizes.rampup
        yield (
            f"batch ramp-up: from {rampup.start} examples in steps of {rampup.increment} over {rampup.examples:,} "
            f"examples; from update {sizes.first_full + 1:,} on, an update has {sizes.full}"
        )
    if job.rampup_seq_length:
        ramp, whole = job.rampup_seq_length, job.training_source.lengths.seq_length
        first_whole = job.update_sizes.first_after(ramp.examples)
        yield (
            f"length ramp-up: records are cut to {ramp.start} tokens at first, {ramp.increment} more at a time; from "
            f"update {first_whole + 1:,} on, they are whole, with up to {whole} tokens"
        )
    if job.masking:
        whole_words = "whole words, " if config.masking.do_whole_word_mask else ""
        yield (
            f"masks: drawn anew at each visit of a record, {whole_words}{config.masking.masked_lm_prob:.3g} of its "
            f"tokens, at most {job.masking.rule.max_predictions_per_seq}"
        )
    yield f"learning rate: {_learning_rate_text(config, ranks)}"
    yield from plan_lines(job, previous.step)
    if previous.checkpoint:
        yield f"continuing {previous.checkpoint} at update {previous.step}"
    elif previous.weights:
        yield (
            f"continuing {previous.weights} as weights, from update 0: it is a published checkpoint, without the "
            f"training state of a run of this program"
        )


def _unused_flags(config: Config) -> Iterator[str]:
    """A line for each flag that the user set and that needs another one, which is not set."""
    settings = {name: value for part in config.settings().values() for name, value in part.items()}
    for field, facts in options_of(*PARTS.values()):
        is_set = field.name in config.explicit_flags and settings[field.name]
        if is_set and facts.needs and not settings[facts.needs.flag]:
            yield f"--{field.name}: has no effect without --{facts.needs.flag}: {facts.needs.because}"


def _allreduce_notices(job: Job) -> Iterator[str]:
    config, optim = job.config, job.config.optim
    if not config.run.horovod:
        return
    if not optim.allreduce_post_accumulation and config.run.do_train:
        yield (
            "--allreduce_post_accumulation=False has no effect: gradients are always all-reduced once, after "
            "accumulation, which gives the same sums"
        )
    if optim.allreduce_fp16:
        megabytes = variables.num_parameters(job.model) * 2 / 1e6
        yield f"--allreduce_fp16: gradients are all-reduced in float16, {megabytes:,.1f} MB an update"


def _mlperf_notices(job: Job, previous: PreviousRun) -> Iterator[str]:
    if previous.checkpoint:
        yield (
            f"--mlperf: a timed run cannot be resumed; training continues at update {previous.step} without MLPerf's "
            f"log. A submission needs a run from the start, in another --output_dir"
        )
    elif job.config.mlperf.mlperf_division == "closed":
        yield from rules.find_deviations(timed_run(job))


def _learning_rate_text(config: Config, ranks: int) -> str:
    """The rule of --lr_scaling as it applies here, and the schedule."""
    optim = config.optim
    peak = schedule.effective_peak(optim, ranks, config.run.horovod)
    if not config.run.horovod:
        rule = "as given: one process"
    elif optim.lr_scaling == "none":
        rule = "as given: --lr_scaling=none"
    else:
        rule = f"{optim.learning_rate:g} x {ranks} ranks: --lr_scaling=linear"
    warm_up = f"warm-up over {optim.num_warmup_steps:,} updates" if optim.num_warmup_steps else "no warm-up"
    end = f"zero at update {optim.num_train_steps:,}"
    if optim.lr_schedule == "constant":
        end = f"the last {optim.num_decay_steps:,} fall to {end}" if optim.num_decay_steps else "then constant"
    return f"peak {peak:g} ({rule}); {warm_up}, {end}"
