"""The plan of a run in a few lines, printed before the graph is built."""

from __future__ import annotations

from collections.abc import Iterator

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.config.training import Config
from bert_pretrain.mlperf import rules
from bert_pretrain.model import variables
from bert_pretrain.optim import schedule
from bert_pretrain.train import plan
from bert_pretrain.train.job import Job, timed_run


def lines(job: Job, previous: PreviousRun, given: set[str]) -> Iterator[str]:
    """What will be done, and settings that have no effect; `given` names the flags that the user set."""
    config, ranks = job.config, job.world.size
    mlperf = _mlperf_notices(job, previous) if config.mlperf.mlperf else []
    unused = _masking_notices(job, given)
    notices = [*job.device.notices, *unused, *_allreduce_notices(job, given), *mlperf, *previous.notices]
    yield from (f"note: {notice}" for notice in notices)
    yield (
        f"model: {variables.num_parameters(job.model):,} parameters; device: {job.device.name} x{ranks}, "
        f"{job.device.compute_dtype.name}, {job.device.backend.value} kernels"
    )
    if config.run.verbose_logging:
        yield from (f"variable {name} {list(shape)}" for name, shape in variables.shapes(job.model).items())
    if not config.run.do_train:
        return
    yield (
        f"training data: {job.training.index.num_records:,} records; an update has {job.examples_per_update} examples: "
        f"{ranks} ranks x {config.optim.num_accumulation_steps} micro-batches x {config.data.train_batch_size}"
    )
    if job.masking:
        whole_words = "whole words, " if config.masking.do_whole_word_mask else ""
        yield (
            f"masks: drawn anew at each visit of a record, {whole_words}{config.masking.masked_lm_prob:.3g} of its "
            f"tokens, at most {job.training.lengths.max_predictions}"
        )
    yield f"learning rate: {_learning_rate(config, ranks)}"
    yield from plan.lines(job, previous.step)
    if previous.checkpoint:
        yield f"continuing {previous.checkpoint} at update {previous.step}"
    elif previous.weights:
        yield (
            f"continuing {previous.weights} as weights, from update 0: it is a published checkpoint, without the "
            f"training state of a run of this program"
        )


def _masking_notices(job: Job, given: set[str]) -> Iterator[str]:
    if job.masking is None:
        for name in sorted(given & {"vocab_file", "masked_lm_prob", "do_whole_word_mask"}):
            yield f"--{name}: has no effect without --dynamic_masking: records are trained on with their own masks"


def _allreduce_notices(job: Job, given: set[str]) -> Iterator[str]:
    config, optim = job.config, job.config.optim
    if not config.run.horovod:
        for name in ("allreduce_fp16", "allreduce_post_accumulation"):
            if name in given and getattr(optim, name):
                yield f"--{name}: has no effect without --horovod: one process has nothing to all-reduce"
    elif not optim.allreduce_post_accumulation and config.run.do_train:
        yield (
            "--allreduce_post_accumulation=False has no effect: gradients are always all-reduced once, after "
            "accumulation, which gives the same sums"
        )
    if config.run.horovod and optim.allreduce_fp16:
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


def _learning_rate(config: Config, ranks: int) -> str:
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
    return f"peak {peak:g} ({rule}); {warm_up}, zero at update {optim.num_train_steps:,}"
