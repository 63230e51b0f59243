"""The settings of `python -m bert_pretrain.run`."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from bert_pretrain.config.data import DataConfig
from bert_pretrain.config.device import DeviceConfig
from bert_pretrain.config.fill_mask import MAX_SENTENCES
from bert_pretrain.config.masking import MaskingConfig
from bert_pretrain.config.mlperf import MlperfConfig
from bert_pretrain.config.optim import MAX_MICRO_BATCHES, OptimConfig
from bert_pretrain.config.option import option, require, require_numbers
from bert_pretrain.system.files import is_url

_DAY = 86_400  # seconds


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Run: what it does, where it starts, what it writes."""

    bert_config_file: Optional[str] = option(
        None, "bert_config.json, the shape of the network.", required=True, is_path=True, is_fetched=True
    )
    output_dir: Optional[str] = option(
        None,
        "Directory of checkpoints, metrics and results; a run found there is continued. With a URL, the run works in "
        "--local_output_dir, and what it writes is uploaded; docs/storage.md.",
        required=True,
        is_path=True,
        takes_url=True,
    )
    local_output_dir: Optional[str] = option(
        None,
        "Where a run works whose --output_dir is a URL; default: a folder for that URL in the cache folder.",
        is_path=True,
    )
    do_train: bool = option(False, "Train.")
    do_eval: bool = option(False, "Evaluate: during training and at its end, or alone without --do_train.")
    init_checkpoint: Optional[str] = option(
        None,
        "Initial weights: a TF1 checkpoint (a prefix, or a directory with a file `checkpoint`), a Hugging Face folder, "
        "or a safetensors file; ignored if output_dir holds a checkpoint to continue.",
        is_path=True,
        is_fetched=True,
    )
    init_optimizer_state: bool = option(
        False, "Load the optimizer's slots and beta powers from --init_checkpoint, too."
    )
    allow_partial_init: bool = option(
        False, "Start although --init_checkpoint lacks variables or has other shapes; those are initialized randomly."
    )
    eval_checkpoint_path: Optional[str] = option(
        None,
        "Checkpoint that --do_eval alone evaluates: a prefix, or a directory with a file `checkpoint`; default: the "
        "newest in output_dir.",
        is_path=True,
        is_fetched=True,
    )
    is_dist_eval_enabled: bool = option(
        True, "Every rank evaluates a slice of the data; false: rank 0 evaluates all of it. The results are the same."
    )
    save_checkpoints_steps: int = option(1000, "Updates between checkpoints; another one is written at the end.")
    keep_checkpoint_max: int = option(5, "Number of newest checkpoints that are kept; 0: all.")
    max_failed_checkpoints: int = option(
        3, "Checkpoints in a row that cannot be written before training ends with an error."
    )
    save_summary_steps: int = option(1, "Updates between points in TensorBoard.")
    display_loss_steps: int = option(10, "Updates between progress lines on the console and in metrics.jsonl.")
    samples_between_eval: int = option(150_000, "Training examples between evaluations.")
    samples_start_eval: int = option(3_000_000, "Training examples before the first evaluation.")
    stop_threshold: float = option(
        0.720, "Training ends when the masked-LM accuracy of an evaluation reaches this; 0: never."
    )
    replay_update: Optional[str] = option(
        None,
        "File refused_update-N.json of a run that ended at a gradient that is not finite: with the run's other flags, "
        "compute that update again in one process, and report what is not finite. Trains nothing.",
        is_path=True,
    )
    filled_sentences: int = option(
        0,
        "At the end of a training run, mask a word in this many sentences of the evaluation data and print the words "
        "that the model fills in; 0: none.",
    )
    hf_dir: Optional[str] = option(
        None,
        "At the end of a training run, write the model here as a Hugging Face folder, unless it is there already.",
        is_path=True,
    )
    dllog_path: Optional[str] = option(
        None, "File for dllogger's lines; default: bert_dllog.json in output_dir.", is_path=True
    )
    report_loss: bool = option(True, "Show the loss in progress lines.")
    verbose_logging: bool = option(False, "List every variable at the start; show tracebacks of errors.")
    horovod: bool = option(False, "Train on several ranks; start under mpirun or horovodrun.")
    exchange: Optional[str] = option(
        None,
        "What sums gradients over ranks with --horovod: horovod, or mpi (mpi4py alone). Default: horovod if installed.",
        ("horovod", "mpi"),
    )
    heartbeat_seconds: int = option(
        20, "Seconds for which a host may be silent before the job ends with exit code 75, with --horovod; 0: for ever."
    )
    seed: int = option(0, "Seed of initial weights and dropout masks.")

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        for name in ("bert_config_file", "output_dir"):
            require(bool(getattr(self, name)), f"--{name} is required")
        require(
            not self.local_output_dir or is_url(self.output_dir),
            "--local_output_dir belongs to an --output_dir that is a URL",
        )
        require(self.do_train or self.do_eval, "nothing to do: give --do_train, --do_eval, or both")
        for name in (
            "save_checkpoints_steps",
            "max_failed_checkpoints",
            "save_summary_steps",
            "display_loss_steps",
            "samples_between_eval",
        ):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("keep_checkpoint_max", "samples_start_eval"):
            require(getattr(self, name) >= 0, f"--{name} must be at least 0, got {getattr(self, name)}")
        for name, most in (("filled_sentences", MAX_SENTENCES), ("heartbeat_seconds", _DAY)):
            value = getattr(self, name)
            require(0 <= value <= most, f"--{name} must be 0 to {most}, got {value}")
        require(0.0 <= self.stop_threshold <= 1.0, f"--stop_threshold must be in [0, 1], got {self.stop_threshold}")
        require(not self.replay_update or self.do_train, "--replay_update needs the run's flags, --do_train among them")
        require(
            not self.init_optimizer_state or bool(self.init_checkpoint),
            "--init_optimizer_state needs --init_checkpoint, the checkpoint to load the slots from",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of `python -m bert_pretrain.run`."""

    run: RunConfig
    data: DataConfig
    optim: OptimConfig
    device: DeviceConfig
    mlperf: MlperfConfig = dataclasses.field(default_factory=MlperfConfig)
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    given: Optional[Config] = None  # the user's, where local paths have taken the place of URLs here

    @property
    def as_given(self) -> Config:
        """The settings as the user gave them, with URLs."""
        return self.given or self

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings as the user gave them, by part and flag."""
        return {name: dataclasses.asdict(getattr(self.as_given, name)) for name in PARTS}

    @property
    def output_url(self) -> Optional[str]:
        """--output_dir where that is a URL."""
        path = self.as_given.run.output_dir.strip()
        return path.rstrip("/") if is_url(path) else None

    def examples_per_rank(self) -> int:
        """Examples that one rank contributes to an update: E = A x B."""
        return self.optim.num_accumulation_steps * self.data.train_batch_size

    def fixed_micro_batches(self, num_ranks: int) -> int:
        """Micro-batches of an update over all ranks with --rank_invariant: K. 0 without."""
        if not self.optim.rank_invariant:
            return 0
        return self.optim.invariant_micro_batches or num_ranks * self.optim.num_accumulation_steps

    def check_division(self, num_ranks: int) -> None:
        """ValueError where --rank_invariant cannot cut an update evenly into micro-batches and these among ranks."""
        if not self.optim.rank_invariant:
            return
        pieces, examples = self.fixed_micro_batches(num_ranks), num_ranks * self.examples_per_rank()
        most = MAX_MICRO_BATCHES
        require(pieces <= most, f"--invariant_micro_batches must be at most {most}, got {pieces}")
        require(
            pieces % num_ranks == 0 and examples % pieces == 0,
            f"--invariant_micro_batches={pieces} must be a multiple of the {num_ranks} ranks and divide the {examples} "
            "examples of an update",
        )

    def check(self) -> None:
        """ValueError, one line, for the first invalid setting or combination of settings."""
        for part in (self.run, self.data, self.optim, self.device, self.mlperf, self.masking):
            part.check()
        require(
            not self.run.do_train or bool(self.data.input_files_dir),
            "--do_train needs --input_files_dir, a directory with TFRecord shards",
        )
        require(
            not self.run.do_eval or bool(self.data.eval_files_dir),
            "--do_eval needs --eval_files_dir, a directory with TFRecord shards",
        )
        require(
            not self.run.filled_sentences or bool(self.data.eval_files_dir),
            "--filled_sentences needs --eval_files_dir, whose sentences are filled in",
        )
        require(
            not self.run.eval_checkpoint_path or not self.run.do_train,
            "--eval_checkpoint_path is for --do_eval alone; with --do_train the weights in training are evaluated",
        )
        self.mlperf.check_with(self)


# The parts of Config, by field, in the order of --help.
PARTS = {
    "run": RunConfig,
    "data": DataConfig,
    "masking": MaskingConfig,
    "optim": OptimConfig,
    "device": DeviceConfig,
    "mlperf": MlperfConfig,
}
