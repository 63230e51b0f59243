"""What every worker of one comparison is told; standard library only."""

from __future__ import annotations

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Settings:
    """One training job, the same for all workers but for `worker`."""

    worker: str  # which of a module's workers this one is
    model_config: str  # bert_config.json, dropout rates included
    weights: str  # .npz with the first weights, by TF1 checkpoint name; "": the framework draws its own
    shards: tuple[str, ...]  # TFRecord files
    seq_length: int
    max_predictions: int
    batch_size: int  # examples of a micro-batch
    num_accumulation_steps: int  # micro-batches of an update
    num_threads: int
    optimizer: str  # lamb or adam
    learning_rate: float  # constant, except where a request names a schedule
    seed: int
    # For a worker that makes its own examples: text as make_data reads it, and the vocab.txt.
    text: str = ""
    vocab: str = ""

    def write(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def read(cls, path: str) -> Settings:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        return cls(**{**values, "shards": tuple(values["shards"])})
