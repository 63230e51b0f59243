"""python -m bert_pretrain.run: train, evaluate, or both. --help lists the settings."""

from __future__ import annotations

import os

from bert_pretrain import cli, processes
from bert_pretrain.config.training import Config, DataConfig, DeviceConfig, OptimConfig, RunConfig

_PARTS = {"run": RunConfig, "data": DataConfig, "optim": OptimConfig, "device": DeviceConfig}


def main() -> int:
    """Reads the flags and hands over to the loop."""
    config = Config(**{name: cli.read(part) for name, part in _PARTS.items()})
    given = set().union(*(cli.given(part) for part in _PARTS.values()))
    config.check()
    # TensorFlow is imported late: --help and a wrong flag are answered at once, and its chatter is set up first.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from bert_pretrain import world
    from bert_pretrain.train import loop

    with world.connected(config.run.horovod) as ranks:
        return loop.run(config, given, ranks)


if __name__ == "__main__":
    processes.name_stderr(processes.launched_rank())
    cli.define(*_PARTS.values())
    cli.main(main)
