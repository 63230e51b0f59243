"""Shards -> report and manifest.json: python -m bert_pretrain.check_data --help."""

from __future__ import annotations

import os
import sys
from typing import Optional

from tqdm import tqdm

from bert_pretrain import cli, worker_pool
from bert_pretrain.check_data import inspection, report
from bert_pretrain.config.check_data import CheckDataConfig
from bert_pretrain.config.option import directories
from bert_pretrain.data import manifest, vocab
from bert_pretrain.data.shard_files import ShardFile, find_shards, fingerprint, in_directory
from bert_pretrain.files import num_cores

_RECORDS_PARSED = 20_000  # over all shards, without --full
_LEAST_PARSED = 20  # of each shard
_BYTES_PER_PROCESS = 500_000_000  # below this, starting another process costs more than it saves


def _run() -> int:
    config = cli.read(CheckDataConfig)
    config.check()
    vocabulary = vocab.load_vocabulary(config.vocab_file) if config.vocab_file else None
    folders = directories(config.input_files_dir)
    paths = find_shards(folders, config.skip_unreadable)
    expectation = _expect(config, paths, vocabulary)
    facts = _inspect(config, paths, expectation)
    found = report.summarize(facts, expectation, vocabulary.id("[MASK]") if vocabulary else None)
    for mark, lines in (("", found.findings), ("remark: ", found.remarks), ("fault: ", found.faults)):
        for line in lines:
            print(mark + line)
    if found.faults:
        print(f"verdict: {len(found.faults)} faults; do not train on this")
        return 1
    if config.write_manifest:
        for folder in folders:
            _write_manifest(folder, facts, expectation)
    remarks = f", {len(found.remarks)} remarks" if found.remarks else ""
    print(f"verdict: sound{remarks}" + (", manifest.json is written" if config.write_manifest else ""))
    return 0


def _expect(
    config: CheckDataConfig, paths: list[str], vocabulary: Optional[vocab.Vocabulary]
) -> inspection.Expectation:
    """The given lengths, or those of the first readable record."""
    lengths = _first_lengths(paths) if not (config.max_seq_length and config.max_predictions_per_seq) else (0, 0)
    return inspection.Expectation(
        config.max_seq_length or lengths[0],
        config.max_predictions_per_seq or lengths[1],
        len(vocabulary.entries) if vocabulary else config.vocab_size,
        vocabulary.id("[CLS]") if vocabulary else None,
        vocabulary.id("[SEP]") if vocabulary else None,
    )


def _first_lengths(paths: list[str]) -> tuple[int, int]:
    problem: Optional[ValueError] = None
    for path in paths:
        try:
            return inspection.first_lengths(path)
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _inspect(
    config: CheckDataConfig, paths: list[str], expectation: inspection.Expectation
) -> list[inspection.ShardFacts]:
    sample_size = 0 if config.full else max(_LEAST_PARSED, _RECORDS_PARSED // len(paths))
    tasks = [inspection.ShardTask(path, expectation, sample_size) for path in paths]
    sizes = [os.path.getsize(path) for path in paths]
    facts: dict[int, inspection.ShardFacts] = {}
    worthwhile = 1 + sum(sizes) // _BYTES_PER_PROCESS
    num_processes = config.num_processes or min(num_cores(), len(paths), worthwhile)
    bar = tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=not sys.stderr.isatty())
    with worker_pool.workers(num_processes) as workers, bar:
        assert workers is not None, "check_data does not run under mpirun"
        workers.run(
            inspection.inspect, tasks, lambda number, share: bar.update(share * sizes[number]), facts.__setitem__
        )
    return [facts[number] for number in range(len(paths))]


def _write_manifest(folder: str, facts: list[inspection.ShardFacts], expectation: inspection.Expectation) -> None:
    files = in_directory([ShardFile(shard.path, shard.num_bytes, shard.num_records) for shard in facts], folder)
    own = {shard.path for shard in files}
    manifest.write(
        folder,
        manifest.Manifest(
            sum(shard.num_records for shard in files),
            expectation.seq_length,
            expectation.max_predictions,
            max(shard.contents.max_id for shard in facts if shard.path in own),
            fingerprint(files),
            {os.path.basename(shard.path): shard.num_records for shard in files},
        ),
    )


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define(CheckDataConfig)
    cli.main(_run, __doc__)


if __name__ == "__main__":
    main()
