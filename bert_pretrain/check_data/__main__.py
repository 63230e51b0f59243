"""Shards -> report and manifest.json: python -m bert_pretrain.check_data --help."""

from __future__ import annotations

from bert_pretrain import cli
from bert_pretrain.check_data import shard_facts
from bert_pretrain.config.check_data import CheckDataConfig, EstimateConfig
from bert_pretrain.storage import local_copies


def _run() -> int:
    config, estimate_config = cli.read_settings(CheckDataConfig), cli.read_settings(EstimateConfig)
    config.check()
    estimate_config.check()
    shard_facts.import_inspection()  # late: --help and invalid flags are answered at once
    from bert_pretrain.check_data import checking

    return checking.check_data(local_copies.localize_settings(config), estimate_config)


def main() -> None:
    """The command: parses the flags, runs and exits."""
    cli.define_flags(CheckDataConfig, EstimateConfig)
    cli.run_command(_run, __doc__)


if __name__ == "__main__":
    main()
