"""The settings of MLPerf's log, and of the check of the initial weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from bert_pretrain.config.option import option, require, require_numbers

if TYPE_CHECKING:
    from bert_pretrain.config.training import Config

TARGET = 0.720  # the masked-LM accuracy that ends a run of the closed division


@dataclasses.dataclass(frozen=True)
class MlperfConfig:
    """MLPerf: its log, the check of the initial weights."""

    mlperf: bool = option(False, "Write mllog.txt for MLPerf Training v5.0 in output_dir; docs/mlperf.md.")
    mlperf_division: str = option("closed", "Division whose rules apply.", ("closed", "open"))
    verify_init: bool = option(
        False, "Evaluate before training; stop if the masked-LM accuracy is not --init_accuracy, to 0.001."
    )
    init_accuracy: float = option(
        0.34085, "What --verify_init expects; MLPerf states the default for model.ckpt-28252 on its 10,000 examples."
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(0.0 <= self.init_accuracy <= 1.0, f"--init_accuracy must be in [0, 1], got {self.init_accuracy}")

    def check_with(self, config: Config) -> None:
        """ValueError for other settings that do not go with these."""
        run, data, optim = config.run, config.data, config.optim
        if self.verify_init:
            is_complete = run.do_train and run.do_eval and run.init_checkpoint and data.max_eval_steps == 0
            require(
                bool(is_complete),
                "--verify_init needs --do_train, --do_eval, --init_checkpoint, and --max_eval_steps=0: all examples",
            )
        if not self.mlperf:
            return
        require(run.do_train and run.do_eval, "--mlperf needs --do_train and --do_eval")
        require(
            run.seed == data.data_seed,
            f"--mlperf logs one seed for weights and data: --seed is {run.seed}, --data_seed {data.data_seed}",
        )
        if self.mlperf_division == "closed":
            for is_right, flag, found in (
                (optim.optimizer_type == "lamb", "--optimizer_type=lamb", optim.optimizer_type),
                (run.stop_threshold >= TARGET, f"--stop_threshold={TARGET}", run.stop_threshold),
                (data.max_eval_steps == 0, "--max_eval_steps=0", data.max_eval_steps),
            ):
                require(is_right, f"--mlperf_division=closed needs {flag}, got {found}")
