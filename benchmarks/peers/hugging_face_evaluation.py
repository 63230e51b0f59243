"""Hugging Face's BertForPreTraining evaluates: `python -m benchmarks.peers.hugging_face_evaluation SETTINGS.json`.

Workers:
- hugging_face: as people run it. Records are padded to their full width, in file order, and the head computes logits
  for all tokens;
- hugging_face_sorted: as well as its user can. Examples are sorted by length, a batch is as wide as its longest, and
  the head computes logits for the masked tokens only.

Both run under torch.inference_mode, in float32. The records are parsed before and lie in memory.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

from benchmarks.peers import records
from benchmarks.peers.hugging_face import MicroBatch, micro_batch
from benchmarks.settings import Settings
from benchmarks.worker import Evaluated, answer_of_evaluation, serve
from bert_pretrain.config.model import ModelConfig
from tests.references import hugging_face as reference


class HuggingFaceEvaluation:
    """Losses and accuracies over all examples, each counted once."""

    def __init__(self, settings: Settings) -> None:
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        torch.set_num_threads(settings.num_threads)
        self._settings, self._examples = settings, records.read(settings.shards)
        with np.load(settings.weights) as weights:
            self._network = reference.model(ModelConfig.from_json(settings.model_config), weights).eval()
        self._lengths = self._examples.input_mask.sum(axis=1)  # [E]
        self._is_sorted = settings.worker == "hugging_face_sorted"
        self._order = np.argsort(self._lengths, kind="stable") if self._is_sorted else np.arange(len(self._lengths))

    def matmul_flops(self) -> None:
        """Ours measures it."""

    def warm_up(self) -> None:
        self._sums(self._order[-self._settings.batch_size :])

    def evaluate(self) -> Evaluated:
        size = self._settings.batch_size
        begin = time.perf_counter()
        sums = np.sum([self._sums(self._order[i : i + size]) for i in range(0, len(self._order), size)], axis=0)
        seconds = time.perf_counter() - begin
        loss, correct, count, next_loss, next_correct, next_count = sums
        metrics = {
            "masked_lm_loss": loss / count,
            "masked_lm_accuracy": correct / count,
            "next_sentence_loss": next_loss / next_count,
            "next_sentence_accuracy": next_correct / next_count,
        }
        return Evaluated(seconds, int(next_count), metrics)

    @torch.inference_mode()
    def _sums(self, chosen: np.ndarray) -> list[float]:
        """Masked-LM loss, hits and count, then the same of the next sentence, over these examples."""
        width = self._lengths[chosen].max() if self._is_sorted else self._settings.seq_length
        examples = records.Examples(*(column[chosen] for column in self._examples))
        cut = {name: getattr(examples, name)[:, :width] for name in ("input_ids", "input_mask", "segment_ids")}
        batch = micro_batch(examples._replace(**cut))
        masked_logits, next_logits = (_logits_of_masked if self._is_sorted else _logits)(self._network, batch)
        return [*_sums_of(masked_logits, batch.masked_ids), *_sums_of(next_logits, batch.next_sentence_labels)]


def _logits(network: transformers.BertForPreTraining, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, V] of the masked tokens, after those of all tokens were computed, and [E, 2]."""
    outputs = network(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    return outputs.prediction_logits.flatten(0, 1)[batch.masked_positions], outputs.seq_relationship_logits


def _logits_of_masked(network: transformers.BertForPreTraining, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, V] and [E, 2]."""
    encoded = network.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    masked = encoded.last_hidden_state.flatten(0, 1)[batch.masked_positions]  # [M, H]
    return network.cls.predictions(masked), network.cls.seq_relationship(encoded.pooler_output)


def _sums_of(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    loss = cross_entropy(logits, labels, reduction="sum").item()
    return [loss, (logits.argmax(-1) == labels).sum().item(), len(labels)]


if __name__ == "__main__":
    serve(HuggingFaceEvaluation, answer_of_evaluation)
