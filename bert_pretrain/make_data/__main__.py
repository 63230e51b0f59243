"""Text -> vocabulary -> shards: python -m bert_pretrain.make_data --help."""

from __future__ import annotations

import contextlib
import sys

from bert_pretrain import cli
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig, TextConfig
from bert_pretrain.config.option import require
from bert_pretrain.data import findings, vocab
from bert_pretrain.data.findings import Severity
from bert_pretrain.make_data import corpus
from bert_pretrain.make_data.demo import DemoSettings, make_demo
from bert_pretrain.make_data.shards import build_shards, python_random
from bert_pretrain.make_data.task_progress import run_tasks
from bert_pretrain.make_data.text.account import Account
from bert_pretrain.make_data.text.make_text import make_text
from bert_pretrain.make_data.vocabulary.build_vocabulary import build_vocabulary
from bert_pretrain.system import worker_pool
from bert_pretrain.system.files import num_cores, require_free_name, split_names
from bert_pretrain.system.locks import DATA, locked_directory

_CONFIGS = (MakeDataConfig, ExampleConfig, TextConfig)


def _run() -> int:
    config, example_config, text_config = (
        cli.read_settings(MakeDataConfig),
        cli.read_settings(ExampleConfig),
        cli.read_settings(TextConfig),
    )
    for settings in (config, example_config, text_config):
        settings.check()
    if config.demo:
        return _make_demo(config.demo_dir(example_config.single_sequence), example_config.single_sequence)
    with worker_pool.worker_processes(config.num_processes or num_cores()) as workers:
        if workers is None:  # a rank other than 0 whose work is done
            return 0
        if config.make_text:
            lines = make_text(config.input_file, config.output_dir, text_config, workers)
            print("\n".join(lines))
            return 0
        if config.train_vocab:
            return _train_vocabulary(config, example_config.do_lower_case, workers)
        return _make_shards(config, example_config, workers)


def _make_demo(directory: str, single_sequence: bool) -> int:
    given = cli.explicit_flags(*_CONFIGS) - {"demo", "output_dir", "single_sequence", "verbose_logging"}
    require(not given, f"--demo has its own settings and takes no --{', --'.join(sorted(given))}")
    counts = make_demo(directory, DemoSettings(single_sequence=single_sequence))
    num_train, num_eval = (counts[split]["examples"] for split in ("train", "eval"))
    print(f"{directory}: {num_train} training examples, {num_eval} held out")
    return 0


def _train_vocabulary(config: MakeDataConfig, lower_case: bool, workers: worker_pool.Workers) -> int:
    spans = corpus.find_text(config.input_file)
    require_free_name("--vocab_file", config.vocab_file)
    if config.num_shards:
        corpus.divide_text(spans, config.num_shards)  # a number that is too high is refused before the long step
    lines = build_vocabulary(
        spans,
        corpus.find_text(config.eval_input_file, "--eval_input_file") if config.eval_input_file else [],
        config.vocab_file,
        config.vocab_size,
        lower_case,
        config.max_memory_gb,
        workers,
    )
    for line in lines:
        print(line)
    return 0


def _make_shards(config: MakeDataConfig, example_config: ExampleConfig, workers: worker_pool.Workers) -> int:
    vocab.load_vocabulary(config.vocab_file)  # a bad one is refused before any work
    spans = corpus.find_text(config.input_file)
    if config.output_dir:
        tasks = build_shards.tasks_for_directory(
            spans, config.output_dir, config.num_shards, config.vocab_file, example_config
        )
    else:
        outputs = split_names(config.output_file)
        for output in outputs:
            require_free_name("--output_file", output)
        tasks = build_shards.tasks_for_files(spans, outputs, config.vocab_file, example_config)
    todo = build_shards.unfinished_tasks(tasks)
    build_shards.require_memory(todo, config.max_memory_gb)
    note = python_random.describe_draw_speed() if todo and example_config.mode == "exact" else ""
    if note:
        print(note, file=sys.stderr)
    with locked_directory(config.output_dir, DATA) if config.output_dir and todo else contextlib.nullcontext():
        results = run_tasks(workers, build_shards.make_shards, todo, [task.num_bytes for task in todo], len(tasks))
    num_examples = sum(counts.examples for counts in results)
    account = Account()
    for counts in results:
        account.add_json(counts.text or {})
    if results:
        print(f"text {account.describe()}", file=sys.stderr)
    num_repeats = sum(counts.repeats for counts in results)
    if num_repeats:
        print(f"{num_repeats} examples that equal another one were left out", file=sys.stderr)
    num_shards = sum(len(task.outputs) for task in todo)
    num_kept = sum(len(task.outputs) for task in tasks) - num_shards
    print(f"{num_examples} examples in {num_shards} new shards" + (f", {num_kept} were there" if num_kept else ""))
    found = build_shards.judge_shards(tasks)
    for finding in findings.shown_findings(found):
        print(finding, file=sys.stderr)
    return 1 if any(finding.severity is Severity.FAULT for finding in found) else 0


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define_flags(*_CONFIGS)
    cli.run_command(_run, __doc__)


if __name__ == "__main__":
    main()
