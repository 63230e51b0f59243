"""The settings of `python -m bert_pretrain.run`."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which records are read and how many make a batch."""

    input_files_dir: Optional[str] = option(None, "Directory with training shards, or several separated by commas.")
    eval_files_dir: Optional[str] = option(None, "Directory with evaluation shards, or several separated by commas.")
    max_seq_length: Optional[int] = option(
        None, "Tokens in a record. Read from the data when not given; a contradiction is an error."
    )
    max_predictions_per_seq: Optional[int] = option(
        None, "Masked tokens in a record at the most. Read from the data when not given; a contradiction is an error."
    )
    train_batch_size: int = option(32, "Examples in a micro-batch, per rank.")
    eval_batch_size: int = option(8, "Examples in an evaluation batch, per rank.")
    max_eval_steps: int = option(
        100,
        "Evaluate the first max_eval_steps x eval_batch_size examples, whatever the number of ranks; 0: all of them.",
    )
    skip_unreadable: bool = option(
        False, "Leave out files in the data directories that are not TFRecords, naming each, instead of stopping."
    )
    pack_sequences: bool = option(
        True, "Lay an update's examples into as few rows as they fill. Same loss, gradients and update, less padding."
    )
    data_seed: int = option(0, "Seed of the order in which records are visited.")

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be."""
        for name in ("train_batch_size", "eval_batch_size"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        require(self.max_eval_steps >= 0, f"--max_eval_steps must be at least 0, got {self.max_eval_steps}")
        for name in ("max_seq_length", "max_predictions_per_seq"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} must be at least 1, got {value}")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How the weights move."""

    optimizer_type: str = option(
        "lamb", "lamb (MLPerf's), or adam: AdamW without bias correction, as in Google's BERT.", ("lamb", "adam")
    )
    learning_rate: float = option(5e-5, "Peak learning rate, before --lr_scaling.")
    lr_scaling: str = option(
        "linear",
        "linear: --learning_rate is multiplied by the number of ranks when --horovod is given; none: used as it is.",
        ("linear", "none"),
    )
    num_train_steps: int = option(100_000, "Updates after which training is complete.")
    num_warmup_steps: int = option(10_000, "Updates of linear warm-up; 0 means none.")
    start_warmup_step: int = option(0, "Update at which the warm-up line crosses zero; MLPerf recipes use -76, -100.")
    poly_power: float = option(1.0, "Power of the polynomial decay to zero; 1 is linear.")
    num_accumulation_steps: int = option(1, "Micro-batches summed into one update.")
    lamb_weight_decay_rate: float = option(0.01, "Weight decay of both optimizers; LayerNorm and bias are exempt.")
    lamb_beta_1: float = option(0.9, "Decay of the first moment, both optimizers.")
    lamb_beta_2: float = option(0.999, "Decay of the second moment, both optimizers.")
    log_epsilon: int = option(-6, "Base-10 logarithm of the optimizers' epsilon.")
    clip_norm: float = option(1.0, "The update's gradient is scaled down to this global norm; 0 turns clipping off.")
    init_loss_scale: int = option(2**15, "First loss scale of float16 training.")
    allreduce_post_accumulation: bool = option(
        False,
        "Has no effect on the result: the sum over ranks is linear, so it is always taken once, after accumulation.",
    )
    allreduce_fp16: bool = option(False, "Sum gradients over ranks in float16: half the bytes, less precision.")

    @property
    def epsilon(self) -> float:
        """Added to the root of the second moment."""
        return 10.0**self.log_epsilon

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be."""
        require(self.learning_rate >= 0, f"--learning_rate must be at least 0, got {self.learning_rate}")
        for name in ("num_train_steps", "num_accumulation_steps", "init_loss_scale"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_warmup_steps", "clip_norm", "lamb_weight_decay_rate"):
            require(getattr(self, name) >= 0, f"--{name} must be at least 0, got {getattr(self, name)}")
        for name in ("lamb_beta_1", "lamb_beta_2"):
            require(0 <= getattr(self, name) < 1, f"--{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.poly_power > 0, f"--poly_power must be above 0, got {self.poly_power}")


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """How the arithmetic is done."""

    amp: bool = option(True, "Multiply in float16 with float32 weights and a dynamic loss scale; cards only.")
    manual_fp16: bool = option(False, "The same as --amp here: precision is by explicit casts, so there is one way.")
    use_xla: bool = option(True, "Let XLA compile what was measured to be faster compiled on this device.")
    native_kernels: bool = option(
        True, "On a CPU, take kernels in C++ compiled for it, where there is a compiler; --use_xla is for elsewhere."
    )
    intra_op_threads: int = option(0, "Threads inside one operation; 0 means one per core that this process may use.")
    inter_op_threads: int = option(1, "Operations that run side by side.")
    recompute: bool = option(
        False, "Keep only each layer's input and run the layer again in the backward pass: less memory, more time."
    )
    peak_tflops: Optional[float] = option(
        None, "Peak of a card in TFLOP/s, for the utilization in results.json; a CPU's matmul rate is measured."
    )
    enable_device_warmup: bool = option(
        False, "Run one update untimed and without effect before the first, so that compiling is not counted."
    )
    iterations_per_loop: int = option(
        1000, "Updates per return to the host on a TPU; no effect here, where each session.run is one update."
    )

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be."""
        require(self.intra_op_threads >= 0, f"--intra_op_threads must be at least 0, got {self.intra_op_threads}")
        require(self.inter_op_threads >= 1, f"--inter_op_threads must be at least 1, got {self.inter_op_threads}")
        require(
            self.peak_tflops is None or self.peak_tflops > 0, f"--peak_tflops must be above 0, got {self.peak_tflops}"
        )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What one run does, where it starts and what it leaves behind."""

    bert_config_file: Optional[str] = option(None, "bert_config.json that gives the network's shape. Required.")
    output_dir: Optional[str] = option(
        None, "Where checkpoints, metrics and results go; a run found there is continued. Required."
    )
    do_train: bool = option(False, "Train.")
    do_eval: bool = option(False, "Evaluate: inside training and at its end, or alone without --do_train.")
    init_checkpoint: Optional[str] = option(
        None, "TF1 checkpoint prefix to start the weights from; ignored when output_dir holds a checkpoint to continue."
    )
    init_optimizer_state: bool = option(
        False, "Load the optimizer's slots and beta powers from --init_checkpoint too, not only the weights."
    )
    allow_partial_init: bool = option(
        False, "Start although --init_checkpoint lacks variables or has other shapes; those start at random."
    )
    eval_checkpoint_path: Optional[str] = option(
        None, "Checkpoint prefix that --do_eval alone evaluates; default: the newest in output_dir."
    )
    is_dist_eval_enabled: bool = option(
        True, "Every rank evaluates a slice; false: rank 0 evaluates all of it. The numbers are the same."
    )
    save_checkpoints_steps: int = option(1000, "Updates between checkpoints; one more is written at the end.")
    keep_checkpoint_max: int = option(5, "Newest checkpoints kept; 0 keeps all.")
    save_summary_steps: int = option(1, "Updates between points of TensorBoard's curves.")
    display_loss_steps: int = option(10, "Updates between lines of progress and of metrics.jsonl.")
    samples_between_eval: int = option(150_000, "Training examples between evaluations.")
    samples_start_eval: int = option(3_000_000, "Training examples before the first evaluation.")
    stop_threshold: float = option(
        0.720, "Training ends when an evaluation's masked-LM accuracy reaches this; 0 means never."
    )
    dllog_path: Optional[str] = option(None, "File for dllogger's lines; default: bert_dllog.json in output_dir.")
    report_loss: bool = option(True, "Show the loss in the lines of progress.")
    verbose_logging: bool = option(False, "List every variable at the start, and show tracebacks of errors.")
    horovod: bool = option(False, "Train on several ranks; start under mpirun or horovodrun.")
    exchange: Optional[str] = option(
        None,
        "What sums gradients over ranks with --horovod: horovod, or mpi (mpi4py alone). Default: horovod if installed.",
        ("horovod", "mpi"),
    )
    seed: int = option(0, "Seed of initial weights and dropout.")

    def check(self) -> None:
        """Raises ValueError for a setting that cannot be."""
        for name in ("bert_config_file", "output_dir"):
            require(bool(getattr(self, name)), f"--{name} is required")
        require(self.do_train or self.do_eval, "nothing to do: give --do_train, --do_eval, or both")
        for name in ("save_checkpoints_steps", "save_summary_steps", "display_loss_steps", "samples_between_eval"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("keep_checkpoint_max", "samples_start_eval"):
            require(getattr(self, name) >= 0, f"--{name} must be at least 0, got {getattr(self, name)}")
        require(0.0 <= self.stop_threshold <= 1.0, f"--stop_threshold must be in [0, 1], got {self.stop_threshold}")
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

    def examples_per_rank(self) -> int:
        """Examples that one rank contributes to an update: E = A x B."""
        return self.optim.num_accumulation_steps * self.data.train_batch_size

    def check(self) -> None:
        """Raises ValueError, one line, for the first setting or pair of settings that cannot be."""
        for part in (self.run, self.data, self.optim, self.device):
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
            not self.run.eval_checkpoint_path or not self.run.do_train,
            "--eval_checkpoint_path is for --do_eval alone; with --do_train the weights in training are evaluated",
        )
