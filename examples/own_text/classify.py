"""Fine-tunes a classifier with Hugging Face, from pretrained and from random weights, and compares them.

python classify.py HF_FOLDER LABELLED_FOLDER trains on some examples of each label in train.jsonl, and measures the
accuracy on all of test.jsonl. Each seed draws other examples, another order and other new weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections import Counter
from pathlib import Path

import torch
import transformers

# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
BATCH, MAX_TOKENS = 8, 64


def main() -> None:
    """Prints a line for each training, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="Hugging Face folder with the pretrained model and its tokenizer")
    parser.add_argument("labelled", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--labels", type=int, default=16, help="examples of each label to train on")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind, 2 to 10")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parsed = parser.parse_args()
    transformers.logging.set_verbosity_error()  # it is known that the classifier's last layer is new
    transformers.logging.disable_progress_bar()
    data = Data(parsed.model, parsed.labelled)
    most = min(Counter(example["label"] for example in data.train).values())
    if not (0 < parsed.labels <= most and 2 <= parsed.seeds <= 10):
        parser.error(f"--labels is 1 to {most}, as many as {parsed.labelled} has of each label; --seeds is 2 to 10")
    accuracies = {"pretrained": [], "random": []}
    for seed in range(parsed.seeds):
        examples = data.draw(parsed.labels, seed)
        for start, found in accuracies.items():
            torch.manual_seed(seed)
            network = make_network(parsed.model, len(data.names), start == "pretrained")
            train(network, *data.encode(examples), parsed.epochs, parsed.learning_rate, seed)
            found.append(accuracy(network, *data.encode(data.test)))
            print(f"seed {seed}, {start} weights: accuracy {found[-1]:.3f}", flush=True)
    print(table(accuracies, parsed.labels, data))


class Data:
    """Labelled paragraphs, and the pretrained model's tokenizer."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.train, self.test = (
            [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
            for name in ("train.jsonl", "test.jsonl")
        )
        self.names = sorted({example["label"] for example in self.train})

    def draw(self, number: int, seed: int) -> list[dict[str, str]]:
        """`number` training examples of each label."""
        generator = random.Random(seed)
        return [
            example
            for name in self.names
            for example in generator.sample([one for one in self.train if one["label"] == name], number)
        ]

    def encode(self, examples: list[dict[str, str]]) -> tuple[transformers.BatchEncoding, torch.Tensor]:
        """Token ids, padded, and labels."""
        texts = [example["text"] for example in examples]
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        return inputs, torch.tensor([self.names.index(example["label"]) for example in examples])


def make_network(model: Path, num_labels: int, pretrained: bool) -> torch.nn.Module:
    """A BERT with a new layer on top; `pretrained` says what is below it."""
    if pretrained:
        return transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=num_labels)
    config = transformers.AutoConfig.from_pretrained(model, num_labels=num_labels)
    return transformers.AutoModelForSequenceClassification.from_config(config)


def train(
    network: torch.nn.Module,
    inputs: transformers.BatchEncoding,
    labels: torch.Tensor,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> None:
    """AdamW, a tenth of the updates warm-up, then linear decay to zero."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    updates = epochs * math.ceil(len(labels) / BATCH)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, updates // 10, updates)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=generator).split(BATCH):
            network(**part(inputs, chosen), labels=labels[chosen]).loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def part(inputs: transformers.BatchEncoding, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
    """The chosen examples without the columns that are padding in all of them."""
    width = int(inputs["attention_mask"][chosen].sum(1).max())
    return {name: value[chosen, :width] for name, value in inputs.items()}


def accuracy(network: torch.nn.Module, inputs: transformers.BatchEncoding, labels: torch.Tensor) -> float:
    """Share of the examples whose label is the network's first choice."""
    network.eval()
    with torch.no_grad():
        found = [network(**part(inputs, chosen)).logits.argmax(1) for chosen in torch.arange(len(labels)).split(64)]
    return (torch.cat(found) == labels).float().mean().item()


def interval(values: list[float]) -> str:
    """Mean and half the width of its 95 % confidence interval."""
    half = T_95[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{100 * statistics.mean(values):.1f} ± {100 * half:.1f}"


def table(accuracies: dict[str, list[float]], labels: int, data: Data) -> str:
    """Accuracies in percent; the difference is taken seed by seed."""
    pretrained, random_start = accuracies["pretrained"], accuracies["random"]
    gains = [one - other for one, other in zip(pretrained, random_start)]
    chosen = f"{labels} labels of each of {len(data.names)} classes, {len(data.test)} test examples, {len(gains)} seeds"
    return "\n".join(
        [
            f"{chosen}; 95 % confidence intervals of the mean (Student's t)",
            "| weights at the start of fine-tuning | accuracy, % |",
            "|---|---|",
            f"| random | {interval(random_start)} |",
            f"| pretrained on the text | {interval(pretrained)} |",
            f"| gain | {interval(gains)} |",
        ]
    )


if __name__ == "__main__":
    main()
