"""Hugging Face's Trainer pretrains and evaluates: `python -m benchmarks.peers.hugging_face_trainer SETTINGS.json`.

It trains as transformers' run_mlm.py does: BertForMaskedLM from a config; every document tokenized, all concatenated
and cut into pieces of the full length; DataCollatorForLanguageModeling masks 15 % anew at each visit; the Trainer's own
AdamW, linear decay, clipping, checkpoints and logging. The pieces lie in memory, where run_mlm.py reads them from
Arrow files.

It evaluates masked-LM models on the held-out records of the settings' shards, with the masks that they have.
"""

from __future__ import annotations

import functools
import json
import pathlib
import time
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

from benchmarks.peers import records
from benchmarks.settings import Settings
from benchmarks.worker import serve
from bert_pretrain.data.vocab import rare_token_ids

_MASKED_SHARE = 0.15


class HuggingFaceTrainer:
    """The text, the held-out records, and what is done with them."""

    def __init__(self, settings: Settings) -> None:
        self.versions = {module.__name__: module.__version__ for module in (torch, transformers, accelerate)}
        torch.set_num_threads(settings.num_threads)
        self._settings = settings
        vocab = str(pathlib.Path(settings.vocab).parent)
        self._tokenizer = transformers.BertTokenizerFast.from_pretrained(vocab, do_lower_case=True)
        self._held_out = records.read(settings.shards)
        counts = np.bincount(
            self._held_out.masked_lm_ids[self._held_out.masked_lm_weights > 0], minlength=len(self._tokenizer)
        )
        self._is_rare = torch.zeros(len(counts), dtype=torch.bool)
        self._is_rare[rare_token_ids(counts)] = True

    @functools.cached_property
    def _pieces(self) -> list[dict[str, list[int]]]:
        """The text's tokens in pieces. A document is one line of what run_mlm.py would read; the rest is dropped."""
        documents = pathlib.Path(self._settings.text).read_text(encoding="utf-8").split("\n\n")
        lines = [" ".join(document.split("\n")) for document in documents]
        columns = self._tokenizer(lines, return_special_tokens_mask=True, verbose=False)
        joined = {name: np.concatenate(values) for name, values in columns.items()}
        length = self._settings.seq_length
        starts = range(0, len(joined["input_ids"]) - length + 1, length)
        return [{name: row[i : i + length].tolist() for name, row in joined.items()} for i in starts]

    def train(self, updates: int, evaluate_every: int, warmup_share: float, output_dir: str) -> dict[str, Any]:
        """Trains a new model. Its points are the evaluations; their seconds are of training alone."""
        settings = self._settings
        transformers.set_seed(settings.seed)
        config = transformers.BertConfig(**json.loads(pathlib.Path(settings.model_config).read_text()))
        network = transformers.BertForMaskedLM(config)
        curve = _Curve(self, evaluate_every, updates)
        trainer = transformers.Trainer(
            model=network,
            args=transformers.TrainingArguments(
                output_dir=output_dir,
                max_steps=updates,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                warmup_steps=round(warmup_share * updates),
                seed=settings.seed,
                save_total_limit=1,
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=self._pieces,
            data_collator=transformers.DataCollatorForLanguageModeling(
                tokenizer=self._tokenizer, mlm_probability=_MASKED_SHARE
            ),
            callbacks=[curve],
        )
        trainer.train()
        batch_size = trainer.args.train_batch_size
        updates_per_epoch = -(-len(self._pieces) // batch_size)  # the last one of an epoch has fewer examples
        for point in curve.points:
            epochs, rest = divmod(point["update"], updates_per_epoch)
            point["examples"] = epochs * len(self._pieces) + rest * batch_size
        tokens = curve.points[-1]["examples"] * settings.seq_length
        return {"points": curve.points, "tokens": tokens, "began": curve.began}

    def evaluate_folder(self, folder: str) -> dict[str, float]:
        """As evaluate, of the model that a folder holds."""
        return self.evaluate(transformers.BertForMaskedLM.from_pretrained(folder))

    @torch.inference_mode()
    def evaluate(self, network: transformers.BertForMaskedLM) -> dict[str, float]:
        """Accuracy and mean loss over all masked tokens of the held-out records, each counted once.

        rare_accuracy: over those whose token is rare among them, as our evaluation counts it.
        """
        was_training = network.training
        network.eval()
        lengths = self._held_out.input_mask.sum(axis=1)  # [E]
        order, size = np.argsort(lengths, kind="stable"), 2 * self._settings.batch_size
        sums = np.zeros(5)
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            sums += self._sums(network, records.Examples(*(column[chosen] for column in self._held_out)))
        network.train(was_training)
        loss, hits, count, rare_hits, rare_count = sums.tolist()
        return {
            "accuracy": hits / count,
            "loss": loss / count,
            "rare_accuracy": rare_hits / rare_count if rare_count else 0.0,
            "masked_tokens": count,
            "rare_tokens": rare_count,
        }

    def _sums(self, network: transformers.BertForMaskedLM, batch: records.Examples) -> list[float]:
        """Loss, hits and masked tokens; hits and number of the rare ones."""
        width = batch.input_mask.sum(axis=1).max()  # of the longest example
        tokens = [column[:, :width] for column in (batch.input_ids, batch.input_mask, batch.segment_ids)]
        example, slot = np.nonzero(batch.masked_lm_weights)
        positions, ids = (values[example, slot] for values in (batch.masked_lm_positions, batch.masked_lm_ids))
        columns = (torch.from_numpy(values).to(network.device) for values in (*tokens, example, positions, ids))
        input_ids, input_mask, segment_ids, example, positions, ids = columns
        encoded = network.bert(input_ids, input_mask, segment_ids).last_hidden_state
        logits = network.cls(encoded[example, positions])  # [M, V]
        is_hit = logits.argmax(-1) == ids
        is_rare = self._is_rare.to(network.device)[ids]
        loss = cross_entropy(logits, ids, reduction="sum")
        return [loss.item(), is_hit.sum().item(), len(is_hit), (is_hit & is_rare).sum().item(), is_rare.sum().item()]


class _Curve(transformers.TrainerCallback):
    """Evaluates after every so many updates and after the last one; its clock stands still meanwhile."""

    def __init__(self, worker: HuggingFaceTrainer, every: int, last: int) -> None:
        self.points: list[dict[str, float]] = []
        self.began = 0.0  # the time at which training began
        self._worker, self._every, self._last = worker, every, last
        self._start = 0.0  # on a clock that leaves the evaluations out

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the clock."""
        self.began, self._start = time.time(), time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """After an update."""
        if state.global_step % self._every and state.global_step != self._last:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.points.append(
            {"update": state.global_step, "seconds": now - self._start, **self._worker.evaluate(model)},
        )
        self._start += time.perf_counter() - now


def _answer(job: HuggingFaceTrainer, request: dict) -> dict:
    """To `{"do": "train", ...}` with the arguments of train, and to `{"do": "evaluate_folder", "folder": ...}`."""
    return getattr(job, request.pop("do"))(**request)


if __name__ == "__main__":
    serve(HuggingFaceTrainer, _answer)
