"""An update that was refused because its gradient is not finite: the file that describes it for --replay_update."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from bert_pretrain.config.training import Config
from bert_pretrain.system.files import write_json

FLAG = "replay_update"
_SHOWN = 6  # records in the message; the file holds all
# Of the values that are read from a file.
_TYPES = {
    "update": int,
    "position": int,
    "loss_scale": float,
    "checkpoint": (str, type(None)),
    "ranks": int,
    "settings": dict,
    "records": list,
}


class RefusedUpdate(NamedTuple):
    """An update that was not applied because its gradient is not finite."""

    update: int  # counted from 1
    position: int  # updates read from the data before this one
    loss_scale: float
    first_bad_variable: str
    checkpoint: Optional[str]  # its name, beside the file; None before the first update: the initial weights
    ranks: int
    settings: dict[str, Any]  # flags that the update depends on
    data: str  # fingerprint of the training data
    records: list[list[str]]  # 'path:number' of each rank's records


def settings_of(config: Config) -> dict[str, Any]:
    """The flags that decide which records, masks, rows and dropout masks an update has."""
    data, optim, masking = config.data, config.optim, config.masking
    names = ("rank_invariant", "invariant_micro_batches")
    return {
        **({name: getattr(optim, name) for name in names} if optim.rank_invariant else {}),
        "seed": config.run.seed,
        "data_seed": data.data_seed,
        "train_batch_size": data.train_batch_size,
        "num_accumulation_steps": optim.num_accumulation_steps,
        "pack_sequences": data.pack_sequences,
        "dynamic_masking": masking.dynamic_masking,
        "masked_lm_prob": masking.masked_lm_prob,
        "do_whole_word_mask": masking.do_whole_word_mask,
    }


def write(output_dir: str, refused: RefusedUpdate) -> str:
    """Writes refused_update-N.json and returns its path."""
    path = os.path.join(output_dir, f"refused_update-{refused.update}.json")
    write_json(path, refused._asdict())
    return path


def refuse(output_dir: str, refused: RefusedUpdate, loss: float, bad_weight: Optional[str]) -> str:
    """Writes the file. Returns the message that ends the run."""
    path = write(output_dir, refused)
    records = [record for of_rank in refused.records for record in of_rank]
    more = f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else ""
    weights = f"Weights are those of update {refused.update - 1}"
    if bad_weight:
        weights = (
            f"The weights are not finite either, first {bad_weight}, and were not saved; the last checkpoint stays"
        )
    return (
        f"update {refused.update}: the gradient is not finite, first at {refused.first_bad_variable} (loss {loss:g}); "
        f"its records are {', '.join(records[:_SHOWN])}{more}. {weights}. A lower --learning_rate or longer "
        f"--num_warmup_steps may help; --{FLAG}={path} computes the update again and names the record at fault"
    )


def read(path: str) -> RefusedUpdate:
    """Reads such a file. ValueError, one line, where it is none."""
    try:
        with open(path, encoding="utf-8") as file:
            refused = RefusedUpdate(**json.load(file))
    except OSError as error:
        raise ValueError(f"--{FLAG}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"--{FLAG}: {path} is no refused_update-N.json: {error}") from None
    for name, kind in _TYPES.items():
        if not isinstance(getattr(refused, name), kind):
            raise ValueError(f"--{FLAG}: {path}: {name} is {getattr(refused, name)!r}, which no run writes")
    if not (1 <= refused.ranks == len(refused.records) and 0 <= refused.position < 2**62 and refused.loss_scale >= 1):
        raise ValueError(f"--{FLAG}: {path}: ranks, records, position and loss_scale are not what a run writes")
    return refused


def first_bad_weight(session: tf.compat.v1.Session, names: list[str]) -> Optional[str]:
    """The first of the variables `names` whose value is not finite; None where all are."""
    held = {variable.op.name: variable for variable in session.graph.get_collection("variables")}
    return next((name for name in names if not np.isfinite(session.run(held[name])).all()), None)
