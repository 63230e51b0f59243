"""Hugging Face's BertForPreTraining on torch: `python -m benchmarks.peers.hugging_face SETTINGS.json`.

Workers:
- hugging_face: as shipped, eager; its masked-LM head computes logits for all tokens;
- hugging_face_masked: eager, the head restricted to the masked tokens;
- hugging_face_compiled: the same under torch.compile.

The records are parsed before the first step and lie in memory: reading costs this peer nothing.
"""

from __future__ import annotations

import random
from typing import Callable, NamedTuple

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

from benchmarks.peers import records
from benchmarks.peers.torch_lamb import Lamb
from benchmarks.settings import Settings
from benchmarks.worker import Step, serve, timed
from bert_pretrain.config.model import ModelConfig
from tests.references import hugging_face as reference


class MicroBatch(NamedTuple):
    """Padded examples."""

    input_ids: torch.Tensor  # [B, S]
    attention_mask: torch.Tensor  # [B, S]
    token_type_ids: torch.Tensor  # [B, S]
    labels: torch.Tensor  # [B, S], -100 where nothing is to be predicted
    masked_positions: torch.Tensor  # [M], flat
    masked_ids: torch.Tensor  # [M]
    next_sentence_labels: torch.Tensor  # [B]


class Parts(NamedTuple):
    """What is trained, and how."""

    network: transformers.BertForPreTraining
    optimizer: torch.optim.Optimizer
    loss: Callable  # loss(network, batch)
    clip: Callable  # clip(parameters, norm)
    versions: dict[str, str]


class TorchTraining:
    """Training steps of a network on torch."""

    def __init__(self, settings: Settings, make: Callable[[transformers.BertForPreTraining, Settings], Parts]) -> None:
        """make returns the parts, from Hugging Face's network with the first weights."""
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(settings.seed)
        self._settings = settings
        self._examples = records.read(settings.shards)
        self._order: list[int] = []
        self._shuffle = random.Random(settings.seed)
        with np.load(settings.weights) as weights:
            network = reference.model(ModelConfig.from_json(settings.model_config), weights)
        self._parts = make(network, settings)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.versions = {**versions, **self._parts.versions}
        loss = _LOSSES.get(settings.worker, loss_of_masked)  # not compiled for one evaluation
        network = self._parts.network
        with torch.no_grad():
            self._first_loss = loss(network.eval(), self._micro_batch(range(settings.batch_size))).item()
        network.train()

    def first_loss(self) -> float:
        return self._first_loss

    def begin_turn(self) -> None:
        """Nothing to prepare."""

    def matmul_flops(self) -> None:
        """Ours measures it."""

    def step(self) -> Step:
        return timed(self._update, self._settings)

    def _update(self) -> float:
        network, optimizer, loss_of, clip, _ = self._parts
        num_micro_batches = self._settings.num_accumulation_steps
        losses = []
        for _ in range(num_micro_batches):
            loss = loss_of(network, self._micro_batch(self._next_examples()))
            (loss / num_micro_batches).backward()
            losses.append(loss.item())
        clip(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(np.mean(losses))

    def _next_examples(self) -> list[int]:
        if len(self._order) < self._settings.batch_size:
            self._order = list(range(len(self._examples.input_ids)))
            self._shuffle.shuffle(self._order)
        chosen = self._order[: self._settings.batch_size]
        del self._order[: self._settings.batch_size]
        return chosen

    def _micro_batch(self, chosen: list[int] | range) -> MicroBatch:
        return micro_batch(records.Examples(*(column[list(chosen)] for column in self._examples)))


def micro_batch(examples: records.Examples) -> MicroBatch:
    """The tensors of padded examples."""
    labels = reference.token_labels(examples).reshape(-1)
    masked = np.flatnonzero(labels >= 0)
    batch = MicroBatch(
        examples.input_ids,
        examples.input_mask,
        examples.segment_ids,
        labels.reshape(examples.input_ids.shape),
        masked,
        labels[masked],
        examples.next_sentence_labels,
    )
    tensors = MicroBatch(*(torch.from_numpy(np.ascontiguousarray(values)) for values in batch))
    # So that torch.compile does not compile anew for each number of masked tokens.
    for values in (tensors.masked_positions, tensors.masked_ids):
        torch._dynamo.mark_dynamic(values, 0)
    return tensors


def _loss_as_shipped(network: transformers.BertForPreTraining, batch: MicroBatch) -> torch.Tensor:
    return network(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        labels=batch.labels,
        next_sentence_label=batch.next_sentence_labels,
    ).loss


def loss_of_masked(network: transformers.BertForPreTraining, batch: MicroBatch) -> torch.Tensor:
    """The loss of a micro-batch, with logits of the masked tokens alone."""
    encoded = network.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    masked = encoded.last_hidden_state.flatten(0, 1)[batch.masked_positions]  # [M, H]
    masked_lm = cross_entropy(network.cls.predictions(masked), batch.masked_ids)
    next_sentence = network.cls.seq_relationship(encoded.pooler_output)
    return masked_lm + cross_entropy(next_sentence, batch.next_sentence_labels)


_LOSSES = {
    "hugging_face": _loss_as_shipped,
    "hugging_face_masked": loss_of_masked,
    "hugging_face_compiled": loss_of_masked,
}


def _parts(network: transformers.BertForPreTraining, settings: Settings) -> Parts:
    loss = _LOSSES[settings.worker]
    if settings.worker == "hugging_face_compiled":
        loss = torch.compile(loss)
    if settings.optimizer == "lamb":
        optimizer = Lamb(network.named_parameters(), settings.learning_rate)
    else:
        optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, fused=True)
    return Parts(network, optimizer, loss, torch.nn.utils.clip_grad_norm_, {})


if __name__ == "__main__":
    serve(lambda settings: TorchTraining(settings, _parts))
