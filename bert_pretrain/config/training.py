"""The settings of `python -m bert_pretrain.run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

from bert_pretrain.config.export import MAX_SENTENCES
from bert_pretrain.config.option import Needs, OnResume, RefusedOnResume, option, require, require_numbers
from bert_pretrain.config.rampup import RampUp, UpdateSizes
from bert_pretrain.optim.settings import MAX_MICRO_BATCHES, OptimConfig
from bert_pretrain.system.files import is_url

_MAX_THREADS = 1024
_MAX_PROFILED = 1000  # updates: a profile is held in memory until it is written
MLPERF_TARGET = 0.720  # the masked-LM accuracy that ends a run of the closed division
_DAY = 86_400  # seconds


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Run: what it does, where it starts, what it writes."""

    bert_config_file: str = option(
        "",
        "bert_config.json, the shape of the network.",
        required=True,
        is_path=True,
        is_fetched=True,
        on_resume=OnResume.CHECKED,
        set_by_script=True,
    )
    output_dir: str = option(
        "",
        "Directory of checkpoints, metrics and results; a run found there is continued. With a URL, the run works in "
        "--local_output_dir, and what it writes is uploaded; docs/storage.md.",
        required=True,
        is_path=True,
        takes_url=True,
        on_resume=OnResume.REPORTS,
        set_by_script=True,
    )
    local_output_dir: Optional[str] = option(
        None,
        "Where a run works whose --output_dir is a URL; default: a folder for that URL in the cache folder.",
        is_path=True,
        on_resume=OnResume.REPORTS,
    )
    do_train: bool = option(False, "Train.", on_resume=OnResume.EVALUATION, set_by_script=True)
    do_eval: bool = option(
        False,
        "Evaluate: during training and at its end, or alone without --do_train.",
        on_resume=OnResume.EVALUATION,
        set_by_script=True,
    )
    init_checkpoint: Optional[str] = option(
        None,
        "Initial weights: a TF1 checkpoint (a prefix, or a directory with a file `checkpoint`), a Hugging Face folder, "
        "or a safetensors file; ignored if output_dir holds a checkpoint to continue.",
        is_path=True,
        is_fetched=True,
        on_resume=OnResume.UNUSED,
    )
    initialization: str = option(
        "google",
        "Initial weights of a run that starts from no checkpoint. google: random, as in Google's code. informed: the "
        "output bias is the logarithm of the tokens' frequencies, and the heads of the first two layers attend to "
        "neighbouring tokens, which a small model learns late or never; docs/recipes.md.",
        choices=["google", "informed"],
        on_resume=OnResume.UNUSED,
    )
    init_optimizer_state: bool = option(
        False, "Load the optimizer's slots and beta powers from --init_checkpoint, too.", on_resume=OnResume.UNUSED
    )
    allow_partial_init: bool = option(
        False,
        "Start although --init_checkpoint lacks variables or has other shapes; those are initialized randomly.",
        on_resume=OnResume.UNUSED,
    )
    eval_checkpoint_path: Optional[str] = option(
        None,
        "Checkpoint that --do_eval alone evaluates: a prefix, or a directory with a file `checkpoint`; default: the "
        "newest in output_dir.",
        is_path=True,
        is_fetched=True,
        on_resume=OnResume.EVALUATION,
        set_by_script=True,
    )
    is_dist_eval_enabled: bool = option(
        True,
        "Every rank evaluates a slice of the data; false: rank 0 evaluates all of it. The results are the same.",
        on_resume=OnResume.EVALUATION,
    )
    save_checkpoints_steps: int = option(
        1000, "Updates between checkpoints; another one is written at the end.", on_resume=OnResume.REPORTS
    )
    keep_checkpoint_max: int = option(
        5, "Number of newest checkpoints that are kept; 0: all.", on_resume=OnResume.REPORTS
    )
    max_failed_checkpoints: int = option(
        3, "Checkpoints in a row that cannot be written before training ends with an error.", on_resume=OnResume.REPORTS
    )
    save_summary_steps: int = option(1, "Updates between points in TensorBoard.", on_resume=OnResume.REPORTS)
    display_loss_steps: int = option(
        10, "Updates between progress lines on the console and in metrics.jsonl.", on_resume=OnResume.REPORTS
    )
    samples_between_eval: int = option(150_000, "Training examples between evaluations.", on_resume=OnResume.EVALUATION)
    samples_start_eval: int = option(
        3_000_000, "Training examples before the first evaluation.", on_resume=OnResume.EVALUATION
    )
    stop_threshold: float = option(
        0.720,
        "Training ends when the masked-LM accuracy of an evaluation reaches this; 0: never.",
        on_resume=OnResume.EVALUATION,
    )
    replay_update: Optional[str] = option(
        None,
        "File refused_update-N.json of a run that ended at a gradient that is not finite: with the run's other flags, "
        "compute that update again in one process, and report what is not finite. Trains nothing.",
        is_path=True,
        on_resume=OnResume.NONE,
        set_by_script=True,
    )
    filled_sentences: int = option(
        0,
        "At the end of a training run, mask a word in this many sentences of the evaluation data and print the words "
        "that the model fills in; 0: none.",
        on_resume=OnResume.REPORTS,
    )
    hf_dir: Optional[str] = option(
        None,
        "At the end of a training run, write the model here as a Hugging Face folder, unless it is there already.",
        is_path=True,
        on_resume=OnResume.REPORTS,
        set_by_script=True,
    )
    dllog_path: Optional[str] = option(
        None,
        "File for dllogger's lines; default: bert_dllog.json in output_dir.",
        is_path=True,
        on_resume=OnResume.REPORTS,
        set_by_script=True,
    )
    report_loss: bool = option(True, "Show the loss in progress lines.", on_resume=OnResume.REPORTS)
    verbose_logging: bool = option(
        False, "List every variable at the start; show tracebacks of errors.", on_resume=OnResume.REPORTS
    )
    horovod: bool = option(
        False, "Train on several ranks; start under mpirun or horovodrun.", on_resume=OnResume.BATCH, set_by_script=True
    )
    exchange: Optional[str] = option(
        None,
        "What sums gradients over ranks with --horovod: horovod, or mpi (mpi4py alone). Default: horovod if installed.",
        ("horovod", "mpi"),
        on_resume=OnResume.ROUNDING,
    )
    heartbeat_seconds: int = option(
        20,
        "Seconds for which a host may be silent before the job ends with exit code 75, with --horovod; 0: without end.",
        on_resume=OnResume.HOSTS,
    )
    seed: int = option(
        0,
        "Seed of initial weights and dropout masks.",
        on_resume=RefusedOnResume("a run has one seed; the other value would change its later dropout masks only"),
        of_update=True,
    )

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
class DataConfig:
    """Data: which records are read, and how many make a batch."""

    input_files_dir: Optional[str] = option(
        None,
        "Directory with training shards, or several separated by commas (a name with commas that exists is one); "
        "required by --do_train. A directory may be a URL: s3://bucket/directory, gs://..., hdfs://...; "
        "docs/storage.md.",
        is_path=True,
        is_list=True,
        takes_url=True,
        on_resume=OnResume.CHECKED,
        set_by_script=True,
    )
    eval_files_dir: Optional[str] = option(
        None,
        "Directory with evaluation shards, or several separated by commas; required by --do_eval. Names and URLs as "
        "above.",
        is_path=True,
        is_list=True,
        takes_url=True,
        on_resume=OnResume.EVALUATION,
        set_by_script=True,
    )
    cache_dir: Optional[str] = option(
        None,
        "Local directory for copies of the shards that are given as URLs; all processes of a host share it. Default: "
        "none, and records are read by ranges.",
        is_path=True,
        on_resume=OnResume.NONE,
    )
    cache_gb: float = option(
        100.0,
        "Most gigabytes (10^9 bytes) in --cache_dir; shards beyond them are read by ranges.",
        on_resume=OnResume.NONE,
    )
    max_seq_length: Optional[int] = option(
        None,
        "Tokens in a record. Read from the data if not given; an error if it differs from the data.",
        on_resume=OnResume.CHECKED,
        set_by_script=True,
    )
    max_predictions_per_seq: Optional[int] = option(
        None,
        "Prediction slots in a record. Read from the data if not given; an error if it differs from the data.",
        on_resume=OnResume.CHECKED,
        set_by_script=True,
    )
    train_batch_size: int = option(32, "Examples in a micro-batch, per rank.", on_resume=OnResume.BATCH, of_update=True)
    rampup_batch_size: Optional[str] = option(
        None,
        "START,INCREMENT,EXAMPLES: the examples of an update, over all ranks, grow from START in steps of INCREMENT to "
        "ranks x num_accumulation_steps x train_batch_size, evenly over the first EXAMPLES examples. Default: no "
        "growth. docs/training.md.",
        on_resume=OnResume.BATCH,
        of_update=True,
        set_by_script=True,  # it plans with updates of one size
    )
    eval_batch_size: int = option(8, "Examples in an evaluation batch, per rank.", on_resume=OnResume.EVALUATION)
    max_eval_steps: int = option(
        100,
        "Evaluate the first max_eval_steps x eval_batch_size examples, over all ranks together; 0: all examples.",
        on_resume=OnResume.EVALUATION,
    )
    skip_unreadable: bool = option(
        False,
        "Leave out files in the data directories that are not TFRecords and name each, instead of stopping.",
        on_resume=OnResume.CHECKED,
    )
    allow_bad_data: bool = option(
        False,
        "Train although a sample of the records shows that nothing can be learned from them, as they have no token to "
        "predict, for example.",
        on_resume=OnResume.NONE,
        set_by_script=True,  # its data are checked before
    )
    rampup_seq_length: Optional[str] = option(
        None,
        "START,INCREMENT,EXAMPLES: records are cut to START tokens at first, INCREMENT more at a time, and whole "
        "after EXAMPLES examples; 128,384,EXAMPLES are two phases for records of 512. Cut tokens are not seen. "
        "Default: all whole. docs/training.md.",
        on_resume=OnResume.AT_ONCE,
        of_update=True,
        set_by_script=True,  # it plans with the speed of whole records
    )
    pack_sequences: bool = option(
        True,
        "Pack several examples into a row. Loss, gradients and update are the same, with less padding.",
        on_resume=OnResume.ROUNDING,
        of_update=True,
    )
    data_seed: int = option(
        0,
        "Seed of the order of the records, and of --dynamic_masking's masks.",
        on_resume=RefusedOnResume(
            "the order of the records would change within an epoch: some would be read twice, others never"
        ),
        of_update=True,
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        for name in ("train_batch_size", "eval_batch_size"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        require(self.max_eval_steps >= 0, f"--max_eval_steps must be at least 0, got {self.max_eval_steps}")
        for name in ("max_seq_length", "max_predictions_per_seq"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} must be at least 1, got {value}")
        require(self.cache_gb > 0, f"--cache_gb must be above 0, got {self.cache_gb}")
        for name in ("rampup_batch_size", "rampup_seq_length"):
            RampUp.parse(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Masking: whether the masks of the training records are drawn anew in each epoch."""

    dynamic_masking: bool = option(
        False,
        "Draw the masks of a training record anew at each visit; evaluation keeps the masks of its records.",
        on_resume=OnResume.MASKS,
        of_update=True,
    )
    vocab_file: Optional[str] = option(
        None,
        "With --dynamic_masking, which requires it: the vocabulary with which the shards were made.",
        is_path=True,
        is_fetched=True,
        on_resume=OnResume.MASKS,
        set_by_script=True,
        needs=Needs("dynamic_masking", "records are trained on with their own masks"),
    )
    masked_lm_prob: float = option(
        0.15,
        "With --dynamic_masking: share of the tokens that are masked.",
        on_resume=OnResume.MASKS,
        of_update=True,
        needs=Needs("dynamic_masking", "records are trained on with their own masks"),
    )
    do_whole_word_mask: bool = option(
        False,
        "With --dynamic_masking: mask all pieces of a word, or none.",
        on_resume=OnResume.MASKS,
        of_update=True,
        needs=Needs("dynamic_masking", "records are trained on with their own masks"),
    )
    max_masked_tokens: int = option(
        0,
        "With --dynamic_masking: most tokens of a record that are masked; 0: as many as the records have prediction "
        "slots, which a larger --masked_lm_prob would not exceed.",
        on_resume=OnResume.MASKS,
        of_update=True,
        needs=Needs("dynamic_masking", "records are trained on with their own masks"),
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(0 <= self.masked_lm_prob <= 1, f"--masked_lm_prob must be in [0, 1], got {self.masked_lm_prob}")
        require(self.max_masked_tokens >= 0, f"--max_masked_tokens must be at least 0, got {self.max_masked_tokens}")
        require(
            not self.dynamic_masking or bool(self.vocab_file),
            "--dynamic_masking needs --vocab_file, the vocabulary with which the shards were made",
        )


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """Device: precision, kernels, threads, memory."""

    device: str = option(
        "auto",
        "Where to compute. auto: on the GPUs that TensorFlow sees, else on the CPU; where the machine shows GPUs that "
        "TensorFlow does not see, nothing is trained. cpu: on the CPU, whatever GPUs there are.",
        choices=["auto", "cpu"],
        on_resume=OnResume.ROUNDING,
    )
    amp: bool = option(
        True,
        "Mixed precision: products of --amp_dtype, float32 weights. On CPUs for --amp_dtype=bfloat16 alone.",
        on_resume=OnResume.ROUNDING,
    )
    amp_dtype: str = option(
        "auto",
        "Dtype of products under --amp. float16: with a dynamic loss scale, on GPUs. bfloat16: without; on CPUs in the "
        "encoder's linear layers, if it is faster than float32 there. auto: on GPUs bfloat16 from compute capability "
        "8.0 on, else float16; on CPUs float32.",
        choices=["auto", "float16", "bfloat16"],
        on_resume=OnResume.ROUNDING,
    )
    manual_fp16: bool = option(False, "Same as --amp.", on_resume=OnResume.ROUNDING)
    use_xla: bool = option(
        True,
        "Compile with XLA what is faster compiled: on GPUs, and on CPUs without native kernels.",
        on_resume=OnResume.ROUNDING,
    )
    attention: str = option(
        "unfused",
        "How GPUs compute attention. unfused: matrix products, and between them programs of XLA. fused: CUDA kernels "
        "that keep the scores in registers. These need --use_xla, bfloat16, heads of 64 units and a --max_seq_length "
        "that is a multiple of 64; no GPU has run them yet (docs/gpu.md).",
        choices=["unfused", "fused"],
        on_resume=OnResume.ROUNDING,
    )
    native_kernels: bool = option(
        True,
        "On a CPU, use C++ kernels, which are compiled for it if there is a C++ compiler.",
        on_resume=OnResume.ROUNDING,
    )
    intra_op_threads: int = option(
        0, "Threads of one operation; 0: one per core that this process may use.", on_resume=OnResume.ROUNDING
    )
    inter_op_threads: int = option(1, "Operations that run at the same time.", on_resume=OnResume.ROUNDING)
    recompute: bool = option(
        False,
        "Keep only the input of each layer and run the layer again in the backward pass: less memory, more time.",
        on_resume=OnResume.ROUNDING,
    )
    deterministic: bool = option(
        False,
        "On GPUs, take the operations of TensorFlow that give the same bits each time, which are slower. CPUs give the "
        "same bits without it.",
        on_resume=OnResume.ROUNDING,
    )
    peak_tflops: Optional[float] = option(
        None,
        "Peak TFLOP/s of the GPU, for the utilization in results.json; a CPU's matmul rate is measured.",
        on_resume=OnResume.REPORTS,
    )
    profile_updates: int = option(
        0,
        "Write a profile of this many updates, after the first three of a start, into output_dir for TensorBoard. 0: "
        "none. Of several ranks, rank 0 alone.",
        on_resume=OnResume.REPORTS,
    )
    enable_device_warmup: bool = option(
        False,
        "Before the first update, compute one that is neither timed nor applied, so that compiling is not timed.",
        on_resume=OnResume.REPORTS,
    )
    iterations_per_loop: int = option(
        1000,
        "Updates per session.run on a TPU; each session.run is one update here.",
        no_effect=True,
        on_resume=OnResume.NONE,
        set_by_script=True,
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(
            0 <= self.profile_updates <= _MAX_PROFILED,
            f"--profile_updates must be 0 to {_MAX_PROFILED}, got {self.profile_updates}",
        )
        for name, least in (("intra_op_threads", 0), ("inter_op_threads", 1)):
            value = getattr(self, name)
            require(least <= value <= _MAX_THREADS, f"--{name} must be {least} to {_MAX_THREADS}, got {value}")
        require(
            self.peak_tflops is None or self.peak_tflops > 0, f"--peak_tflops must be above 0, got {self.peak_tflops}"
        )


@dataclasses.dataclass(frozen=True)
class MlperfConfig:
    """MLPerf: its log, the check of the initial weights."""

    mlperf: bool = option(
        False,
        "Write mllog.txt for MLPerf Training v5.0 in output_dir; docs/mlperf.md.",
        on_resume=OnResume.MLPERF,
        set_by_script=True,
    )
    mlperf_division: str = option(
        "closed", "Division whose rules apply.", ("closed", "open"), on_resume=OnResume.MLPERF, set_by_script=True
    )
    verify_init: bool = option(
        False,
        "Evaluate before training; stop if the masked-LM accuracy is not --init_accuracy, to 0.001.",
        on_resume=OnResume.UNUSED,
        set_by_script=True,
    )
    init_accuracy: float = option(
        0.34085,
        "What --verify_init expects; MLPerf states the default for model.ckpt-28252 on its 10,000 examples.",
        on_resume=OnResume.UNUSED,
        set_by_script=True,
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
                (run.stop_threshold >= MLPERF_TARGET, f"--stop_threshold={MLPERF_TARGET}", run.stop_threshold),
                (data.max_eval_steps == 0, "--max_eval_steps=0", data.max_eval_steps),
            ):
                require(is_right, f"--mlperf_division=closed needs {flag}, got {found}")


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of `python -m bert_pretrain.run`."""

    run: RunConfig
    data: DataConfig
    optim: OptimConfig
    device: DeviceConfig
    mlperf: MlperfConfig = dataclasses.field(default_factory=MlperfConfig)
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    explicit_flags: frozenset[str] = frozenset()  # names of the flags that a command line or a flagfile set
    flag_origins: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of those that a command line did not
    with_urls: Optional[Config] = None  # the user's, where local paths have taken the place of URLs here

    @property
    def original(self) -> Config:
        """The settings as the user gave them, with URLs."""
        return self.with_urls or self

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings as the user gave them, by part and flag."""
        return {name: dataclasses.asdict(getattr(self.original, name)) for name in PARTS}

    @property
    def output_url(self) -> Optional[str]:
        """--output_dir where that is a URL."""
        path = self.original.run.output_dir.strip()
        return path.rstrip("/") if is_url(path) else None

    def examples_per_rank(self) -> int:
        """Examples that one rank contributes to an update, after --rampup_batch_size: E = A x B."""
        return self.optim.num_accumulation_steps * self.data.train_batch_size

    def update_sizes(self, num_ranks: int) -> UpdateSizes:
        """How many examples each update has over all ranks."""
        rampup = RampUp.parse("rampup_batch_size", self.data.rampup_batch_size)
        return UpdateSizes(num_ranks * self.examples_per_rank(), rampup)

    def smallest_share(self, num_ranks: int) -> int:
        """The number of examples of which every update over all ranks is a multiple: its part of a micro-batch.

        One example on each rank; with --rank_invariant, one micro-batch on each rank.
        """
        pieces = self.fixed_micro_batches(num_ranks)
        return num_ranks * (num_ranks * self.examples_per_rank() // pieces if pieces else 1)

    def fixed_micro_batches(self, num_ranks: int) -> int:
        """Micro-batches of an update over all ranks with --rank_invariant: K, after --rampup_batch_size. 0 without."""
        if not self.optim.rank_invariant:
            return 0
        return self.optim.invariant_micro_batches or num_ranks * self.optim.num_accumulation_steps

    def check_division(self, num_ranks: int) -> None:
        """ValueError where updates cannot be divided among ranks.

        --rank_invariant cuts an update evenly into micro-batches and these among ranks, and so does each size of
        --rampup_batch_size.
        """
        self._check_micro_batches(num_ranks)
        sizes, share = self.update_sizes(num_ranks), self.smallest_share(num_ranks)
        if not sizes.rampup:
            return
        sizes.rampup.check("rampup_batch_size", sizes.full, "the examples of an update")
        piece = f"{share // num_ranks} examples of a micro-batch" if self.optim.rank_invariant else "an example"
        require(
            sizes.rampup.start % share == 0 and sizes.rampup.increment % share == 0,
            f"--rampup_batch_size={sizes.rampup}: START and INCREMENT must be multiples of {share}: {piece} on each of "
            f"{num_ranks} ranks",
        )

    def _check_micro_batches(self, num_ranks: int) -> None:
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
