"""Checks a data set: shards in, report, exit code and manifest out."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Optional

from tqdm import tqdm

from bert_pretrain.check_data.estimate import estimate_lines, read_planned_run
from bert_pretrain.check_data.inspection import read_first_lengths
from bert_pretrain.check_data.report import (
    DataReport,
    check_histogram_path,
    draw_histogram,
    example_lines,
    summarize_shards,
)
from bert_pretrain.check_data.shard_facts import (
    Expectation,
    ShardFacts,
    ShardToInspect,
    inspect_in_worker,
    sum_contents,
)
from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.data import vocab
from bert_pretrain.data.findings import Severity
from bert_pretrain.data.shards import shard_files
from bert_pretrain.data.shards.shard_files import ShardFile, find_shards, fingerprint, in_directory
from bert_pretrain.system import worker_pool
from bert_pretrain.system.files import num_cores, split_names

_RECORDS_PARSED = 20_000  # over all shards, without --full
_LEAST_PARSED = 20  # of each shard
_BYTES_PER_PROCESS = 500_000_000  # below this, starting another process costs more than it saves
_WIDTH = 120  # characters of a line where stdout is no terminal


def check_data(config: CheckDataConfig, estimate_config: EstimateConfig) -> int:
    """Checks the shards and prints the report. Returns the exit code; ValueError for what cannot be checked."""
    plan = read_planned_run(estimate_config)
    if config.histogram:
        check_histogram_path(config.histogram)
    vocabulary = vocab.load_vocabulary(config.vocab_file) if config.vocab_file else None
    folders = split_names(config.input_files_dir)
    paths = find_shards(folders, config.skip_unreadable)
    for folder in folders if config.write_manifest else ():
        shard_files.require_manifest_writable(folder)
    expectation = _expect(config, paths, vocabulary)
    facts = _inspect(config, paths, expectation)
    report = summarize_shards(facts, expectation, vocabulary.id("[MASK]") if vocabulary else None, _bar_character())
    num_records = sum(shard.num_records for shard in facts)
    if plan and num_records:
        report.lines.extend(estimate_lines(plan, num_records))
    if vocabulary:
        report.lines.extend(_shown_lines(facts, config.num_shown(), vocabulary))
    for line in (*report.lines, *(finding for severity in reversed(Severity) for finding in report.of(severity))):
        print(line)
    if config.histogram:
        _draw(config.histogram, facts)
    return _conclude(config, folders, facts, expectation, report)


def _conclude(
    config: CheckDataConfig, folders: list[str], facts: list[ShardFacts], expectation: Expectation, report: DataReport
) -> int:
    faults = report.of(Severity.FAULT)
    if faults:
        print(f"verdict: {len(faults)} faults; do not train on this")
        return 1
    if config.write_manifest:
        for folder in folders:
            _write_manifest(folder, facts, expectation)
    counts = [(len(report.of(severity)), severity.value) for severity in (Severity.WARNING, Severity.NOTE)]
    others = "".join(f", {count} {word}{'s' if count > 1 else ''}" for count, word in counts if count)
    print(f"verdict: sound{others}" + (", manifest.json is written" if config.write_manifest else ""))
    return 0


def _expect(config: CheckDataConfig, paths: list[str], vocabulary: Optional[vocab.Vocabulary]) -> Expectation:
    """The given lengths, or those of the first readable record."""
    are_given = config.max_seq_length and config.max_predictions_per_seq
    lengths = (0, 0) if are_given else _first_lengths(paths)
    return Expectation(
        config.max_seq_length or lengths[0],
        config.max_predictions_per_seq or lengths[1],
        len(vocabulary.entries) if vocabulary else config.vocab_size,
        vocabulary.id("[CLS]") if vocabulary else None,
        vocabulary.id("[SEP]") if vocabulary else None,
        vocabulary.id("[UNK]") if vocabulary else None,
    )


def _first_lengths(paths: list[str]) -> tuple[int, int]:
    problem: Optional[ValueError] = None
    for path in paths:
        try:
            return read_first_lengths(path)
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _inspect(config: CheckDataConfig, paths: list[str], expectation: Expectation) -> list[ShardFacts]:
    sample_size = 0 if config.full else max(_LEAST_PARSED, _RECORDS_PARSED // len(paths))
    tasks = [
        ShardToInspect(path, expectation, sample_size, num_shown)
        for path, num_shown in zip(paths, _shown_of_each(config.num_shown(), len(paths)))
    ]
    sizes = [os.path.getsize(path) for path in paths]
    facts: dict[int, ShardFacts] = {}
    worthwhile = 1 + sum(sizes) // _BYTES_PER_PROCESS
    num_processes = config.num_processes or min(num_cores(), len(paths), worthwhile)
    bar = tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=not sys.stderr.isatty())
    with worker_pool.worker_processes(num_processes) as workers, bar:
        assert workers is not None, "check_data does not run under mpirun"
        workers.run(
            inspect_in_worker, tasks, lambda number, share: bar.update(share * sizes[number]), facts.__setitem__
        )
    return [facts[number] for number in range(len(paths))]


def _shown_of_each(num_shown: int, num_shards: int) -> list[int]:
    """How many examples of each shard are shown: spread evenly."""
    return [(number + 1) * num_shown // num_shards - number * num_shown // num_shards for number in range(num_shards)]


def _shown_lines(facts: list[ShardFacts], num_shown: int, vocabulary: vocab.Vocabulary) -> list[str]:
    width = shutil.get_terminal_size((_WIDTH, 0)).columns
    shown = [example for shard in facts for example in shard.shown][:num_shown]
    lines = [line for example in shown for line in example_lines(example, vocabulary.entries, width)]
    return [*lines, "[x:y] is a token x where y is to be predicted"] if shown else []


def _bar_character() -> str:
    """What bars consist of: a character that stdout can show."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"


def _draw(path: str, facts: list[ShardFacts]) -> None:
    contents = sum_contents([shard.contents for shard in facts])
    if not contents.num_parsed:
        print(f"--histogram: no record could be parsed, {path} is not written")
        return
    draw_histogram(contents.length_counts, path)
    print(f"--histogram: {path} is written")


def _write_manifest(folder: str, facts: list[ShardFacts], expectation: Expectation) -> None:
    files = in_directory([ShardFile(shard.path, shard.num_bytes, shard.num_records) for shard in facts], folder)
    own = {shard.path for shard in files}
    shard_files.write_manifest(
        folder,
        shard_files.Manifest(
            sum(shard.num_records for shard in files),
            expectation.seq_length,
            expectation.max_predictions,
            max(shard.contents.max_id for shard in facts if shard.path in own),
            fingerprint(files),
            {os.path.basename(shard.path): shard.num_records for shard in files},
        ),
    )
