"""Text -> vocabulary -> shards: python -m bert_pretrain.make_data --help."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from bert_pretrain import cli, worker_pool
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig
from bert_pretrain.config.option import require
from bert_pretrain.data import vocab
from bert_pretrain.files import num_cores
from bert_pretrain.make_data import build_shards, corpus, raw_text, train_vocab
from bert_pretrain.make_data.demo import make_demo

_LOG_SECONDS = 10  # between lines of progress where there is no terminal


def _run() -> int:
    config, example_config = cli.read(MakeDataConfig), cli.read(ExampleConfig)
    config.check()
    example_config.check()
    if config.demo:
        return _make_demo(config)
    with worker_pool.workers(config.num_processes or num_cores()) as workers:
        if workers is None:  # a rank other than 0 whose work is done
            return 0
        if config.make_text:
            return _make_text(config, workers)
        if config.train_vocab:
            return _train_vocabulary(config, example_config)
        return _make_shards(config, example_config, workers)


def _make_demo(config: MakeDataConfig) -> int:
    given = (cli.given(MakeDataConfig) | cli.given(ExampleConfig)) - {"demo", "output_dir", "verbose_logging"}
    require(not given, f"--demo has its own settings and takes no --{', --'.join(sorted(given))}")
    counts = make_demo(config.demo_dir)
    num_train, num_eval = (counts[split]["examples"] for split in ("train", "eval"))
    print(f"{config.demo_dir}: {num_train} training examples, {num_eval} held out")
    return 0


def _make_text(config: MakeDataConfig, workers: worker_pool.Workers) -> int:
    tasks = raw_text.plan(config.input_file, config.output_dir, config.num_held_out, config.language)
    todo = raw_text.unfinished(tasks)
    sizes = [corpus.whole(task.source).end for task in todo]
    results = _run_tasks(workers, raw_text.make, todo, sizes, len(tasks))
    num_train, num_held_out = (sum(column) for column in zip(*results)) if results else (0, 0)
    counts = f"{num_train} articles for training and {num_held_out} held out"
    print(f"{config.output_dir}: {counts}, from {len(todo)} new files")
    return 0


def _train_vocabulary(config: MakeDataConfig, example_config: ExampleConfig) -> int:
    spans = build_shards.find_text(config.input_file)
    lines = (line for document in corpus.read_documents(spans) for line in document)
    vocabulary = train_vocab.train_vocabulary(lines, config.vocab_size, example_config.do_lower_case)
    vocab.write_vocabulary(config.vocab_file, vocabulary)
    print(f"{config.vocab_file}: {len(vocabulary.entries)} entries")
    return 0


def _make_shards(config: MakeDataConfig, example_config: ExampleConfig, workers: worker_pool.Workers) -> int:
    vocab.load_vocabulary(config.vocab_file)  # a bad one is refused before any work
    spans = build_shards.find_text(config.input_file)
    if config.output_dir:
        tasks = build_shards.tasks_for_directory(
            spans, config.output_dir, config.num_shards, config.vocab_file, example_config
        )
    else:
        outputs = [path.strip() for path in config.output_file.split(",")]
        tasks = build_shards.tasks_for_files(spans, outputs, config.vocab_file, example_config)
    todo = build_shards.unfinished(tasks)
    results = _run_tasks(workers, build_shards.make, todo, [task.num_bytes for task in todo], len(tasks))
    num_examples = sum(counts.examples for counts in results)
    num_alone = sum(counts.documents == 1 for counts in results)
    if num_alone:
        print(
            f"note: the text of {num_alone} of {len(todo)} outputs is a single document, so their random second "
            "sentences come from the same document; put blank lines between documents",
            file=sys.stderr,
        )
    num_shards = sum(len(task.outputs) for task in todo)
    num_kept = sum(len(task.outputs) for task in tasks) - num_shards
    print(f"{num_examples} examples in {num_shards} new shards" + (f", {num_kept} were there" if num_kept else ""))
    return 0


def _run_tasks(
    workers: worker_pool.Workers, work: worker_pool.Work, pieces: Sequence[Any], sizes: list[int], num_all: int
) -> list[Any]:
    """Runs the tasks, the largest first; shows progress in bytes of text, and the time left."""
    order = sorted(range(len(pieces)), key=lambda piece: -sizes[piece])
    left = [sizes[piece] for piece in order]
    results = []
    if num_all > len(pieces):
        print(f"{num_all - len(pieces)} of {num_all} were finished before and are kept", file=sys.stderr)
    on_terminal = sys.stderr.isatty()
    # Without a terminal, the line that tqdm formats is printed from time to time.
    bar = tqdm(total=sum(sizes), unit="B", unit_scale=True, file=sys.stderr if on_terminal else io.StringIO())
    last_line = time.monotonic()

    def progress(number: int, share: float) -> None:
        nonlocal last_line
        done = left[number] if share == 1.0 else min(left[number], int(share * sizes[order[number]]))
        left[number] -= done
        bar.update(done)
        if not on_terminal and time.monotonic() - last_line > _LOG_SECONDS:
            last_line = time.monotonic()
            print(bar, file=sys.stderr, flush=True)

    def finish(number: int, result: Any) -> None:
        results.append(result)
        bar.set_postfix_str(f"{len(results)} of {len(pieces)} done", refresh=on_terminal)
        progress(number, 1.0)

    with bar:
        workers.run(work, [pieces[piece] for piece in order], progress, finish)
    return results


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define(MakeDataConfig, ExampleConfig)
    cli.main(_run, __doc__)


if __name__ == "__main__":
    main()
