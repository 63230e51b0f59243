"""README.md of a Hugging Face folder: what the files of the run say about data, updates and accuracies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Optional

from bert_pretrain import __version__
from bert_pretrain.config.model import ModelConfig

_METRICS = {
    "masked_lm_accuracy": "masked-LM accuracy",
    "masked_lm_loss": "masked-LM loss (nats)",
    "next_sentence_accuracy": "next-sentence accuracy",
    "next_sentence_loss": "next-sentence loss (nats)",
}


def text(name: str, config: ModelConfig, updates: int, run: dict[str, Any], results: Optional[dict[str, Any]]) -> str:
    """The content of README.md. run: run.json, {} without one; results: results.json if it is about this checkpoint."""
    measured = {key: results[key] for key in _METRICS if results and isinstance(results.get(key), (int, float))}
    return "\n".join(
        ["---", *_front_matter(name, measured), "---", "", *_body(name, config, updates, run, measured), ""]
    )


def _front_matter(name: str, measured: dict[str, float]) -> Iterator[str]:
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


def _body(
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
    yield from _training(run)
    yield ""
    if measured:
        yield from ("## Evaluation on held-out examples", "", "| measure | value |", "|---|---|")
        yield from (f"| {_METRICS[key]} | {value:.6g} |" for key, value in measured.items())
        yield ""
    yield from ("## Licence and intended use", "", "Not stated. Whoever publishes this model adds both.")


def _training(run: dict[str, Any]) -> Iterator[str]:
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
    yield f"- Optimizer: {optim['optimizer_type']}, learning rate {optim['learning_rate']:g}"
