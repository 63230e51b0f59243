"""The settings of `python -m bert_pretrain.make_data`."""

from __future__ import annotations

import dataclasses
import os
from typing import Optional

from bert_pretrain.config.option import option


@dataclasses.dataclass(frozen=True)
class MakeDataConfig:
    """From text to shards; names and defaults are those of google-research/bert's script where it has them."""

    demo: bool = option(
        False,
        "Make the embedded demo's vocabulary, model shape and shards from text that every Python installation has.",
    )
    output_dir: Optional[str] = option(
        None, "Where the demo goes; default: demo in $BERT_PRETRAIN_CACHE, or in .cache of the project."
    )
    verbose_logging: bool = option(False, "Show tracebacks of errors.")

    @property
    def demo_dir(self) -> str:
        """Where the demo's data is made and found again."""
        project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        cache = os.environ.get("BERT_PRETRAIN_CACHE") or os.path.join(project, ".cache")
        return self.output_dir or os.path.join(cache, "demo")
