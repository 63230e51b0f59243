"""What a run is going to do and how long it will take, and which commands come after it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from bert_pretrain.config.training import Config
from bert_pretrain.data import side_file
from bert_pretrain.run_files.results import Evaluated, Rates
from bert_pretrain.train.evaluation import is_due, num_due
from bert_pretrain.train.job import Job

TIMED_UPDATES = 3  # after which the time to come is estimated


def lines(job: Job, step: int) -> Iterator[str]:
    """The updates, evaluations and checkpoints that follow update `step`."""
    num_updates, run = job.config.optim.num_train_steps, job.config.run
    if step >= num_updates:
        return
    examples = (num_updates - step) * job.examples_per_update
    yield (
        f"plan: {num_updates - step:,} updates with {examples:,} examples, "
        f"{examples / job.training.index.num_records:.3g} times the training data; a checkpoint every "
        f"{run.save_checkpoints_steps:,} updates"
    )
    if run.do_eval:
        ends = f"; training ends when one reaches a masked-LM accuracy of {run.stop_threshold:g}"
        yield f"evaluations: {_num_evaluations(job, step):,} to come{ends if run.stop_threshold else ''}"


def time_to_come(job: Job, step: int, rates: Rates, latest: Optional[Evaluated]) -> str:
    """How long the updates after `step` and their evaluations take at the speed of `rates`, which are not None.

    latest: the last evaluation; None where none has been timed.
    """
    seconds = (job.config.optim.num_train_steps - step) / rates.updates_per_second
    rest, number = "", _num_evaluations(job, step) if job.config.run.do_eval else 0
    if number and not (latest and latest.seconds):
        rest = f", evaluations ({number:,}) not included"
    elif number:
        seconds += number * latest.seconds
        rest = f", evaluations ({number:,} of {duration(latest.seconds)}) included"
    return f"time to come: about {duration(seconds)} at {rates.updates_per_second:.3g} updates/s{rest}"


def _num_evaluations(job: Job, step: int) -> int:
    """Evaluations after updates later than `step`, the one at the end included."""
    run, last, examples = job.config.run, job.config.optim.num_train_steps, job.examples_per_update
    schedule = examples, run.samples_start_eval, run.samples_between_eval
    return num_due(step, last, *schedule) + (not is_due(last, *schedule))


def duration(seconds: float) -> str:
    """Seconds in the two largest units: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"


def next_commands(config: Config, results: dict[str, Any], shards: Sequence[str] = ()) -> Iterator[str]:
    """The commands that follow a run which ended with `results`; shards: its training data."""
    run, output_dir = config.as_given.run, shlex.quote(config.as_given.run.output_dir)
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
        yield f'  ask       python -m bert_pretrain.fill_mask {shlex.quote(run.hf_dir)} "... [MASK] ..."'
    else:
        yield (
            f"  export    python -m bert_pretrain.export --checkpoint={output_dir}/model.ckpt-{results['updates']} "
            f"--bert_config_file={shlex.quote(run.bert_config_file)} "
            f"--vocab_file={vocabulary} --hf_dir={shlex.quote(config.run.output_dir)}/hugging_face"
        )
    yield f"  report    python -m bert_pretrain.report {output_dir}"


def _vocabulary_file(config: Config, shards: Sequence[str]) -> Optional[str]:
    """The vocabulary that the user, the data or the model's folder name; None where none of them does."""
    beside_model = os.path.join(os.path.dirname(config.run.bert_config_file), "vocab.txt")
    found = config.as_given.masking.vocab_file or side_file.vocabulary_file(shards)
    return found or (beside_model if os.path.isfile(beside_model) else None)
