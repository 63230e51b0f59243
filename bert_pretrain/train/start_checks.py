"""What would fail at the end of a run, or teach nothing, is found before its first update."""

from __future__ import annotations

import shutil
from typing import Optional

import numpy as np

from bert_pretrain.checkpoints.resume import PreviousRun
from bert_pretrain.data.dataset import Sample, Source
from bert_pretrain.data.dynamic_masking import DynamicMasking, original_tokens
from bert_pretrain.data.findings import (
    Finding,
    RecordStatistics,
    Severity,
    judge_records,
    judge_vocabulary,
    severest_first,
    shown_findings,
)
from bert_pretrain.data.order import Visits
from bert_pretrain.data.schema import Examples
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.vocab import Vocabulary, load_vocabulary
from bert_pretrain.model import variables
from bert_pretrain.optim.optimizers import OPTIMIZERS
from bert_pretrain.system.console import log
from bert_pretrain.train.job import Job


def judge_data(job: Job) -> None:
    """Prints what a sample of the records says. Rank 0 calls it.

    ValueError, one line, where nothing can be learned from them, without --allow_bad_data.
    """
    run = job.config.run
    uses_vocabulary = job.masking or run.hf_dir or run.filled_sentences
    for flag, source, masking in (
        ("input_files_dir", job.training, job.masking),
        ("eval_files_dir", job.evaluation, None),
    ):
        if source is None:
            continue
        try:
            path = job.config.masking.vocab_file if uses_vocabulary else None
            found = judge_source(source, masking, path, job.config.optim.next_sentence_weight)
        except ValueError as error:
            raise ValueError(f"--{flag}: {error}") from None
        if not job.config.data.allow_bad_data:
            _refuse_faults(flag, found)
        for finding in shown_findings(found):
            (log.info if finding.severity is Severity.NOTE else log.warning)(finding.line(f"--{flag}: "))


def _refuse_faults(flag: str, found: list[Finding]) -> None:
    fault = next((finding for finding in found if finding.severity is Severity.FAULT), None)
    if fault:
        raise ValueError(
            f"--{flag}: of a sample of its records: {fault.text}; {fault.remedy}; --allow_bad_data trains all the same"
        )


def judge_source(
    source: Source,
    masking: Optional[DynamicMasking],
    vocab_file: Optional[str],
    next_sentence_weight: Optional[float] = None,
) -> list[Finding]:
    """What a sample of a data set says; masking draws its masks, vocab_file is the user's.

    next_sentence_weight: see judge_records.

    ValueError, naming the record, for one that training would refuse.
    """
    sample = source.read_sample()
    if masking is not None:  # with the masks that are trained on
        visits = Visits(sample.numbers, np.zeros_like(sample.numbers))
        sample = sample._replace(examples=masking.redraw(sample.examples, visits, sample.names))
    path = vocab_file or shard_files.vocabulary_file_of(source.index.paths)
    vocabulary = load_vocabulary(path) if path else None
    found = judge_records(count_examples(sample.examples, vocabulary), next_sentence_weight)
    if path and vocabulary:
        found += _judge_vocabulary(sample, vocabulary, source.limits.vocab_size, path)
    return severest_first(found)


def _judge_vocabulary(sample: Sample, vocabulary: Vocabulary, vocab_size: int, path: str) -> list[Finding]:
    ids = original_tokens(sample.examples)
    last = np.count_nonzero(sample.examples.input_mask, axis=1) - 1
    ends = ids[np.arange(len(ids)), last]
    is_framed = (ids[:, 0] == vocabulary.id("[CLS]")) & (ends == vocabulary.id("[SEP]"))
    num_framed, max_id = int(np.count_nonzero(is_framed)), int(ids.max())
    return judge_vocabulary(len(vocabulary.entries), vocab_size, num_framed, len(ids), max_id, path)


def warn_of_full_disk(job: Job, previous: PreviousRun) -> None:
    """Warns where the checkpoints to come, and the export, need more room than output_dir's disk has."""
    run, optim = job.config.run, job.config.optim
    if not run.do_train:
        return
    weights = 4 * variables.num_parameters(job.model)  # bytes
    checkpoint = weights * (1 + len(OPTIMIZERS[optim.optimizer_type].SLOTS))
    number = max(0, -(-(optim.num_train_steps - previous.step) // run.save_checkpoints_steps))
    if run.keep_checkpoint_max:  # one more is there while the oldest is still kept
        number = min(number, max(1, run.keep_checkpoint_max + 1 - len(previous.kept_checkpoints)))
    number += run.do_eval  # best/
    needed = number * checkpoint + (weights if run.hf_dir else 0)
    free = shutil.disk_usage(run.output_dir).free
    if needed > free:
        log.warning(
            f"warning: --output_dir: {run.output_dir} has {free / 1e9:.3g} GB free, and {number} checkpoints of "
            f"{checkpoint / 1e9:.3g} GB are to come{', and the export' if run.hf_dir else ''}; free "
            f"{(needed - free) / 1e9:.3g} GB, or give a smaller --keep_checkpoint_max"
        )


def count_examples(examples: Examples, vocabulary: Optional[Vocabulary]) -> RecordStatistics:
    """The sums that are judged; examples must be valid (schema.py)."""
    is_used = examples.masked_lm_weights > 0  # [E, P]
    shown = np.take_along_axis(examples.input_ids, np.where(is_used, examples.masked_lm_positions, 0), axis=1)
    is_token = examples.input_mask != 0
    numbered = vocabulary.numbered() if vocabulary else {}
    counts = {
        "records": len(is_token),
        "slots": is_token.size,
        "tokens": np.count_nonzero(is_token),
        "predictions": np.count_nonzero(is_used),
        "without_prediction": np.count_nonzero(~is_used.any(axis=1)),
        "with_one_segment": np.count_nonzero(~(is_token & (examples.segment_ids != 0)).any(axis=1)),
        "random_next": np.count_nonzero(examples.next_sentence_labels == 1),
    }
    if vocabulary:
        counts["mask_tokens"] = np.count_nonzero(is_used & (shown == numbered["[MASK]"]))
        counts["kept_tokens"] = np.count_nonzero(is_used & (shown == examples.masked_lm_ids))
        counts["unknown"] = np.count_nonzero(is_token & (original_tokens(examples) == numbered["[UNK]"]))
    return RecordStatistics(**{name: int(count) for name, count in counts.items()})
