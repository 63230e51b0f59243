"""Text -> vocabulary -> shards: python -m bert_pretrain.make_data --help."""

from __future__ import annotations

from bert_pretrain import cli
from bert_pretrain.config.make_data import MakeDataConfig
from bert_pretrain.config.option import require
from bert_pretrain.data.demo import make_demo


def _run() -> int:
    config = cli.read(MakeDataConfig)
    if config.demo:
        counts = make_demo(config.demo_dir)
        print(
            f"{config.demo_dir}: {counts['train']['examples']} training examples, {counts['eval']['examples']} held out"
        )
    return 0


if __name__ == "__main__":
    cli.define(MakeDataConfig)
    cli.main(_run)
