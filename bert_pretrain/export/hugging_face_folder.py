"""Writes a Hugging Face folder: what from_pretrained of transformers 4 and 5 reads, without PyTorch.

Its README.md says what the files of the run tell about data, updates and accuracies.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np
from safetensors.numpy import save_file

from bert_pretrain import __version__
from bert_pretrain.config.model import LAYER_NORM_EPSILON, ModelConfig, hugging_face_config_of
from bert_pretrain.data.vocab import NUM_FREQUENT_TOKENS, Vocabulary, write_vocabulary
from bert_pretrain.hugging_face import names, tokenizer
from bert_pretrain.hugging_face.safetensors_files import WEIGHTS
from bert_pretrain.system import files

_FORMAT = {"format": "pt"}  # transformers refuses files that do not say so
_METRICS = {
    "masked_lm_accuracy": "masked-LM accuracy",
    "masked_lm_accuracy_rare": f"masked-LM accuracy beyond the {NUM_FREQUENT_TOKENS} most frequent tokens",
    "masked_lm_loss": "masked-LM loss (nats)",
    "next_sentence_accuracy": "next-sentence accuracy",
    "next_sentence_loss": "next-sentence loss (nats)",
}


def write_hugging_face_folder(
    folder: str,
    config: ModelConfig,
    values: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    lower_case: bool,
    readme: str,
) -> None:
    """Writes all files into an existing folder. values: variable -> float32; readme: the content of README.md."""
    pad = vocabulary.numbered()["[PAD]"]
    model = hugging_face_config_of(dataclasses.asdict(config), LAYER_NORM_EPSILON, pad)
    files.write_json(os.path.join(folder, "config.json"), model, indent=2)
    with files.plain_name(folder) as plain:
        save_file(
            {names.hugging_face_name(name): names.convert_value(name, value) for name, value in values.items()},
            os.path.join(plain, WEIGHTS),
            metadata=_FORMAT,
        )
        tokenizer.make_tokenizer(vocabulary, lower_case).save(os.path.join(plain, "tokenizer.json"))
    write_vocabulary(os.path.join(folder, "vocab.txt"), vocabulary)
    settings = tokenizer.tokenizer_settings(lower_case, config.max_position_embeddings)
    files.write_json(os.path.join(folder, "tokenizer_config.json"), settings, indent=2)
    files.write_json(os.path.join(folder, "special_tokens_map.json"), tokenizer.special_tokens_map(), indent=2)
    with files.atomic_write(os.path.join(folder, "README.md")) as file:
        file.write(files.printable(readme))


def readme_text(
    name: str, config: ModelConfig, updates: int, run: dict[str, Any], results: Optional[dict[str, Any]]
) -> str:
    """The content of README.md. run: run.json, {} without one; results: results.json if it is about this checkpoint."""
    measured = {key: results[key] for key in _METRICS if results and isinstance(results.get(key), (int, float))}
    return "\n".join(
        ["---", *_front_matter_lines(name, measured), "---", "", *_body_lines(name, config, updates, run, measured), ""]
    )


def _front_matter_lines(name: str, measured: dict[str, float]) -> Iterator[str]:
    """YAML; a JSON string is a YAML string."""
    yield "library_name: transformers"
    yield "pipeline_tag: fill-mask"
    yield "tags:"
    yield from ("- bert", "- fill-mask")
    if not measured:
        return
    yield "model-index:"
    yield f"- name: {json.dumps(name)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: fill-mask"
    yield "    dataset:"
    yield "      name: held-out examples of the training run"
    yield "      type: text"
    yield "    metrics:"
    for key, value in measured.items():
        yield f"    - type: {key}"
        yield f"      value: {value:.6g}"
        yield f"      name: {json.dumps(_METRICS[key])}"


def _body_lines(
    name: str, config: ModelConfig, updates: int, run: dict[str, Any], measured: dict[str, float]
) -> Iterator[str]:
    yield f"# {name}"
    yield ""
    yield (
        f"BERT for pretraining: {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} heads, vocabulary of {config.vocab_size:,}, up to "
        f"{config.max_position_embeddings} tokens. Exported from a TF1 checkpoint by bert_pretrain {__version__}, both "
        f"heads included. GELU is the tanh form (`gelu_new`)."
    )
    yield ""
    yield from ("## Training", "")
    yield f"- Updates: {updates:,}" if updates else "- Updates: not stated in the checkpoint"
    yield from _training_lines(run)
    yield ""
    if measured:
        yield from ("## Evaluation on held-out examples", "", "| measure | value |", "|---|---|")
        yield from (f"| {_METRICS[key]} | {value:.6g} |" for key, value in measured.items())
        yield ""
    yield from ("## Licence and intended use", "", "Not stated. Whoever publishes this model adds both.")


def _training_lines(run: dict[str, Any]) -> Iterator[str]:
    if not run:
        yield "- Data: not stated; there was no run.json beside the checkpoint"
        return
    settings, data = run["settings"], run["data"]
    for kind, title in (("train", "Training data"), ("eval", "Evaluation data")):
        if kind in data:
            yield f"- {title}: {data[kind]['records']:,} records, fingerprint `{data[kind]['fingerprint']}`"
    optim = settings["optim"]
    yield (
        f"- Batch: {run['ranks']} ranks x {optim['num_accumulation_steps']} micro-batches x "
        f"{settings['data']['train_batch_size']} examples"
    )
    for name, title in (("rampup_batch_size", "Batch"), ("rampup_seq_length", "Length")):
        if settings["data"].get(name):
            yield f"- {title} ramp-up (start, increment, examples): {settings['data'][name]}"
    yield f"- Optimizer: {optim['optimizer_type']}, learning rate {optim['learning_rate']:g}"
    if optim.get("next_sentence_weight") == 0:
        yield "- Masked language modeling alone: pooler and next-sentence head were not trained in this run"
