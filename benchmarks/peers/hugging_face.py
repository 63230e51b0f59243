"""Hugging Face's BertForPreTraining on torch: `python -m benchmarks.peers.hugging_face SETTINGS.json`.

Workers:
- hugging_face: as shipped, eager; its masked-LM head computes logits for all tokens;
- hugging_face_masked: eager, the head restricted to the masked tokens;
- hugging_face_compiled: the same under torch.compile.

The records are parsed before the first step and lie in memory: reading costs this peer nothing.
"""

from __future__ import annotations

import random
from typing import NamedTuple

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


class _MicroBatch(NamedTuple):
    input_ids: torch.Tensor  # [B, S]
    attention_mask: torch.Tensor  # [B, S]
    token_type_ids: torch.Tensor  # [B, S]
    labels: torch.Tensor  # [B, S], -100 where nothing is to be predicted
    masked_positions: torch.Tensor  # [M], flat
    masked_ids: torch.Tensor  # [M]
    next_sentence_labels: torch.Tensor  # [B]


class HuggingFaceTraining:
    """Hugging Face's training steps."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(settings.seed)
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self._settings = settings
        self._examples = records.read(settings.shards)
        self._order: list[int] = []
        self._shuffle = random.Random(settings.seed)
        with np.load(settings.weights) as weights:
            self._network = reference.model(ModelConfig.from_json(settings.model_config), weights)
        loss = _LOSSES[settings.worker]
        self._loss = torch.compile(loss) if settings.worker == "hugging_face_compiled" else loss
        with torch.no_grad():
            self._first_loss = loss(self._network.eval(), self._micro_batch(range(settings.batch_size))).item()
        self._network.train()
        self._optimizer = _optimizer(settings, self._network)

    def first_loss(self) -> float:
        return self._first_loss

    def begin_turn(self) -> None:
        """Nothing to prepare."""

    def matmul_flops(self) -> None:
        """Ours measures it."""

    def step(self) -> Step:
        return timed(self._update, self._settings)

    def _update(self) -> float:
        num_micro_batches = self._settings.num_accumulation_steps
        losses = []
        for _ in range(num_micro_batches):
            loss = self._loss(self._network, self._micro_batch(self._next_examples()))
            (loss / num_micro_batches).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(np.mean(losses))

    def _next_examples(self) -> list[int]:
        if len(self._order) < self._settings.batch_size:
            self._order = list(range(len(self._examples.input_ids)))
            self._shuffle.shuffle(self._order)
        chosen = self._order[: self._settings.batch_size]
        del self._order[: self._settings.batch_size]
        return chosen

    def _micro_batch(self, chosen: list[int] | range) -> _MicroBatch:
        examples = records.Examples(*(column[list(chosen)] for column in self._examples))
        labels = reference.token_labels(examples).reshape(-1)
        masked = np.flatnonzero(labels >= 0)
        batch = _MicroBatch(
            examples.input_ids,
            examples.input_mask,
            examples.segment_ids,
            labels.reshape(examples.input_ids.shape),
            masked,
            labels[masked],
            examples.next_sentence_labels,
        )
        tensors = _MicroBatch(*(torch.from_numpy(np.ascontiguousarray(values)) for values in batch))
        # So that torch.compile does not compile anew for each number of masked tokens.
        for values in (tensors.masked_positions, tensors.masked_ids):
            torch._dynamo.mark_dynamic(values, 0)
        return tensors


def _loss_as_shipped(network: transformers.BertForPreTraining, batch: _MicroBatch) -> torch.Tensor:
    return network(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        labels=batch.labels,
        next_sentence_label=batch.next_sentence_labels,
    ).loss


def _loss_of_masked(network: transformers.BertForPreTraining, batch: _MicroBatch) -> torch.Tensor:
    encoded = network.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    masked = encoded.last_hidden_state.flatten(0, 1)[batch.masked_positions]  # [M, H]
    masked_lm = cross_entropy(network.cls.predictions(masked), batch.masked_ids)
    next_sentence = network.cls.seq_relationship(encoded.pooler_output)
    return masked_lm + cross_entropy(next_sentence, batch.next_sentence_labels)


_LOSSES = {
    "hugging_face": _loss_as_shipped,
    "hugging_face_masked": _loss_of_masked,
    "hugging_face_compiled": _loss_of_masked,
}


def _optimizer(settings: Settings, network: transformers.BertForPreTraining) -> torch.optim.Optimizer:
    if settings.optimizer == "lamb":
        return Lamb(network.named_parameters(), settings.learning_rate)
    return torch.optim.AdamW(network.parameters(), settings.learning_rate, fused=True)


if __name__ == "__main__":
    serve(HuggingFaceTraining)
