"""What a run is made of: settings, model, ranks, device and data, opened and checked before anything is built."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Optional

import tensorflow as tf

from bert_pretrain.checkpoints import remote_output
from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import require
from bert_pretrain.config.rampup import RampUp, UpdateSizes
from bert_pretrain.config.training import PARTS, Config
from bert_pretrain.data.dataset import Source
from bert_pretrain.data.dynamic_masking import DynamicMasking
from bert_pretrain.data.input_fn import EvaluationInput, TrainingInput, UpdateShape
from bert_pretrain.data.schema import Limits
from bert_pretrain.data.shards.index_tables import Share
from bert_pretrain.data.truncation import LEAST_LENGTH
from bert_pretrain.distributed import agreement
from bert_pretrain.distributed.world import World
from bert_pretrain.mlperf.rules import TimedRun
from bert_pretrain.optim import schedule
from bert_pretrain.run_files import run_json
from bert_pretrain.storage import local_copies
from bert_pretrain.storage.file_cache import FileCache
from bert_pretrain.system.files import ReportBytes, split_names
from bert_pretrain.train import device
from bert_pretrain.train.device import Device


class Job(NamedTuple):
    """A run on this rank. What the run does not use is None."""

    config: Config
    model: ModelConfig
    world: World
    device: Device
    training: Optional[Source] = None
    evaluation: Optional[Source] = None
    masking: Optional[DynamicMasking] = None

    @property
    def training_source(self) -> Source:
        """The training data, of a run with --do_train."""
        assert self.training is not None, "without --do_train"
        return self.training

    @property
    def evaluation_source(self) -> Source:
        """The evaluation data, of a run with --do_eval."""
        assert self.evaluation is not None, "without --do_eval"
        return self.evaluation

    @property
    def update_sizes(self) -> UpdateSizes:
        """How many examples each update has over all ranks."""
        return self.config.update_sizes(self.world.size)

    @property
    def rampup_seq_length(self) -> Optional[RampUp]:
        """How the tokens grow to which records are cut; None where they are whole."""
        return RampUp.parse("rampup_seq_length", self.config.data.rampup_seq_length)

    @property
    def fixed_micro_batches(self) -> int:
        """Micro-batches of an update over all ranks with --rank_invariant; 0 without."""
        return self.config.fixed_micro_batches(self.world.size)


def with_local_paths(config: Config, world: World) -> Config:
    """The settings with local copies of what is given as URLs, fetched here. A collective: every rank must call it.

    ValueError, one line, for what cannot be fetched.
    """

    def fetch(report: ReportBytes) -> Config:
        parts = {name: local_copies.localize_settings(getattr(config, name), report) for name in PARTS}
        if config.output_url:
            directory = config.run.local_output_dir or remote_output.default_output_directory(config.output_url)
            parts["run"] = dataclasses.replace(parts["run"], output_dir=directory)
        return dataclasses.replace(config, **parts, with_urls=config)

    return agreement.long_task_on_all_ranks(world, fetch)


def open_on_all_ranks(config: Config, world: World) -> Job:
    """open_job on every rank, with products of the dtype that all ranks take. A collective."""
    job = agreement.long_task_on_all_ranks(world, lambda report: open_job(config, world, report))
    previous = agreement.from_root(world, lambda: run_json.previous_dtype(config))
    return job._replace(device=device.agree_on_device(job.device, world, previous))


def open_job(config: Config, world: World, report: ReportBytes) -> Job:
    """Opens everything that the run reads.

    ValueError, one line, for the first thing that is wrong.
    """
    if config.run.do_train:
        config.check_division(world.size)
    model = ModelConfig.from_json(config.run.bert_config_file)
    data = config.data
    cache = FileCache(data.cache_dir, int(data.cache_gb * 1e9)) if data.cache_dir else None
    training = _open_source(config, "input_files_dir", model, world, report, cache) if config.run.do_train else None
    evaluation = _open_source(config, "eval_files_dir", model, world, report, cache) if config.run.do_eval else None
    if training is not None:
        _check_rampup_seq_length(config, training.lengths.seq_length)
    masking = None
    if training is not None and config.masking.dynamic_masking:
        masking = DynamicMasking.open(config.masking, config.data.data_seed, training)
    report("loading kernels", 0, 0)  # the first start on a machine compiles them
    chosen = device.choose_device(
        config.device, config.explicit_flags, world.local_rank, world.local_size, model.hidden_size
    )
    return Job(config, model, world, chosen, training, evaluation, masking)


def describe_job(job: Job) -> dict[str, Any]:
    """The content of run.json."""
    data = {
        kind: {
            "fingerprint": source.index.fingerprint,
            "records": source.index.num_records,
            "paths": source.index.paths,
        }
        for kind, source in (("train", job.training), ("eval", job.evaluation))
        if source
    }
    if job.masking:
        data["train"]["vocabulary"] = job.masking.fingerprint
    device = {
        "device": job.device.name,
        "compute_dtype": job.device.compute_dtype.name,
        "backend": job.device.backend.value,
    }
    return run_json.describe_run(job.config, job.model, job.world.size, data, device, tf.__version__)


def timed_run(job: Job) -> TimedRun:
    """What MLPerf's rules and log say of the run, which trains and evaluates."""
    optim, num_ranks = job.config.optim, job.world.size
    return TimedRun(
        job.config,
        job.model,
        system=f"{job.device.name} x{num_ranks}",
        peak_learning_rate=schedule.effective_peak(optim, num_ranks, job.config.run.horovod),
        update_sizes=job.update_sizes,
        seq_length=job.training_source.lengths.seq_length,
        num_train_records=job.training_source.index.num_records,
        num_eval_records=job.evaluation_source.index.num_records,
    )


def training_input(job: Job, first_update: int) -> TrainingInput:
    """This rank's examples of update `first_update` (counted from 0 in the data) and of all that follow."""
    data, world = job.config.data, job.world
    shape = UpdateShape(
        job.config.examples_per_rank(),
        data.train_batch_size,
        data.pack_sequences,
        world.rank,
        world.size,
        job.fixed_micro_batches,
        few_shapes=job.device.backend.is_compiled,
        rampup_batch_size=job.update_sizes.rampup,
        rampup_seq_length=job.rampup_seq_length,
    )
    return TrainingInput(job.training_source, shape, data.data_seed, first_update, job.masking)


def evaluation_input(job: Job) -> EvaluationInput:
    """This rank's slice of the evaluation set, all of it where rank 0 evaluates alone. Of a run with --do_eval."""
    data = job.config.data
    max_examples = data.max_eval_steps * data.eval_batch_size or None
    rank_and_size = (job.world.rank, job.world.size) if job.config.run.is_dist_eval_enabled else (0, 1)
    return EvaluationInput(
        job.evaluation_source, data.eval_batch_size, data.pack_sequences, max_examples, *rank_and_size
    )


def _check_rampup_seq_length(config: Config, seq_length: int) -> None:
    flag = "rampup_seq_length"
    rampup = RampUp.parse(flag, config.data.rampup_seq_length)
    if not rampup:
        return
    rampup.check(flag, seq_length, "the tokens of a record")
    require(
        rampup.start >= LEAST_LENGTH,
        f"--{flag}={rampup}: START must be at least {LEAST_LENGTH}: [CLS], [SEP] and a token of each sentence",
    )


def _open_source(
    config: Config, flag: str, model: ModelConfig, world: World, report: ReportBytes, cache: Optional[FileCache]
) -> Source:
    limits = Limits(model.vocab_size, model.type_vocab_size)
    share = Share(world.local_rank, world.local_size, lambda *progress: report(f"indexing --{flag}", *progress))
    try:
        source = Source.open(split_names(getattr(config.data, flag)), config.data, limits, share, world.is_root, cache)
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from None
    if source.lengths.seq_length > model.max_position_embeddings:
        raise ValueError(
            f"--{flag}: its records have {source.lengths.seq_length} tokens, more than the model's "
            f"max_position_embeddings {model.max_position_embeddings}; use shorter records or another bert_config.json"
        )
    return source
