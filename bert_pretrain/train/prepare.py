"""What a run reads, opened and checked before anything is started."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from bert_pretrain.config.model import ModelConfig
from bert_pretrain.config.option import directories
from bert_pretrain.config.training import Config
from bert_pretrain.data.input_fn import EvaluationInput, Source
from bert_pretrain.data.validation import Limits
from bert_pretrain.train import device, run_file
from bert_pretrain.train.device import Device
from bert_pretrain.world import World


class Prepared(NamedTuple):
    """The inputs of a run, opened and checked."""

    config: Config
    model: ModelConfig
    device: Device
    training: Optional[Source]
    evaluation: Optional[Source]


def prepare(config: Config, given: set[str], world: World) -> Prepared:
    """Opens everything that a run reads. ValueError, one line, for the first thing that is wrong.

    `given` names the flags that the person set.
    """
    model = ModelConfig.from_json(config.run.bert_config_file)
    training = _open(config, "input_files_dir", model, world) if config.run.do_train else None
    evaluation = _open(config, "eval_files_dir", model, world) if config.run.do_eval else None
    return Prepared(config, model, device.choose(config.device, given, world.local_rank), training, evaluation)


def describe(prepared: Prepared, world: World) -> dict[str, Any]:
    """The content of run.json."""
    data = {
        kind: {
            "fingerprint": source.index.fingerprint,
            "records": source.index.num_records,
            "paths": source.index.paths,
        }
        for kind, source in (("train", prepared.training), ("eval", prepared.evaluation))
        if source
    }
    return run_file.describe(prepared.config, prepared.model, prepared.device, world.size, data)


def evaluation_input(prepared: Prepared, world: World) -> Optional[EvaluationInput]:
    """This rank's slice of the evaluation set, or all of it where root evaluates alone."""
    data = prepared.config.data
    if prepared.evaluation is None:
        return None
    limit = data.max_eval_steps * data.eval_batch_size or None
    share = (world.rank, world.size) if prepared.config.run.is_dist_eval_enabled else (0, 1)
    return EvaluationInput(prepared.evaluation, data.eval_batch_size, data.pack_sequences, limit, *share)


def _open(config: Config, flag: str, model: ModelConfig, world: World) -> Source:
    limits = Limits(model.vocab_size, model.type_vocab_size)
    try:
        source = Source.open(
            directories(getattr(config.data, flag)), config.data, limits, rank=world.rank, num_ranks=world.size
        )
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from None
    if source.lengths.seq_length > model.max_position_embeddings:
        raise ValueError(
            f"--{flag}: its records have {source.lengths.seq_length} tokens, more than the model's "
            f"max_position_embeddings {model.max_position_embeddings}; use shorter records or another bert_config.json"
        )
    return source
