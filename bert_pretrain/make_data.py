"""Text -> vocabulary -> shards: python -m bert_pretrain.make_data --help."""

from __future__ import annotations

from bert_pretrain import cli
from bert_pretrain.config.make_data import ExampleConfig, MakeDataConfig
from bert_pretrain.config.option import require
from bert_pretrain.data import corpus, shard_making, wordpiece
from bert_pretrain.data.demo import make_demo


def _run() -> int:
    config, example_config = cli.read(MakeDataConfig), cli.read(ExampleConfig)
    config.check()
    example_config.check()
    if config.demo:
        return _make_demo(config)
    spans = shard_making.find_text(config.input_file)
    if config.train_vocab:
        return _train_vocabulary(spans, config, example_config)
    vocabulary = wordpiece.load_vocabulary(config.vocab_file)
    if config.output_dir:
        tasks = shard_making.tasks_for_directory(spans, config.output_dir)
    else:
        outputs = [path.strip() for path in config.output_file.split(",")]
        tasks = shard_making.tasks_for_files(spans, outputs, example_config.mode)
    for task in tasks:
        counts = shard_making.make(task, example_config, vocabulary)
        print(f"{', '.join(task.outputs)}: {counts.examples} examples of {counts.documents} documents")
    return 0


def _make_demo(config: MakeDataConfig) -> int:
    given = (cli.given(MakeDataConfig) | cli.given(ExampleConfig)) - {"demo", "output_dir", "verbose_logging"}
    require(not given, f"--demo has its own settings and takes no --{', --'.join(sorted(given))}")
    counts = make_demo(config.demo_dir)
    num_train, num_eval = (counts[split]["examples"] for split in ("train", "eval"))
    print(f"{config.demo_dir}: {num_train} training examples, {num_eval} held out")
    return 0


def _train_vocabulary(spans: list[corpus.Span], config: MakeDataConfig, example_config: ExampleConfig) -> int:
    lines = (line for document in corpus.read_documents(spans) for line in document)
    vocabulary = wordpiece.train_vocabulary(lines, config.vocab_size, example_config.do_lower_case)
    wordpiece.write_vocabulary(config.vocab_file, vocabulary)
    print(f"{config.vocab_file}: {len(vocabulary.entries)} entries")
    return 0


if __name__ == "__main__":
    cli.define(MakeDataConfig, ExampleConfig)
    cli.main(_run)
