"""What --make_text made, in lines for the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bert_pretrain.config.make_data import TextConfig


def summary(output_dir: str, content: dict[str, Any], duplicates: Sequence[str], settings: TextConfig) -> Iterator[str]:
    """The numbers of text_report.json, `content`, in a few lines; `duplicates` are some of them as examples."""
    yield (
        f"{output_dir}: {content['found_documents']:,} documents of {content['found_sentences']:,} sentences found in "
        f"{content['files']:,} files"
    )
    yield f"train: {_amount(content, 'train')}"
    total = content["train_bytes"] + content["eval_bytes"]
    share = content["eval_bytes"] / total if total else 0
    yield f"eval, held out: {_amount(content, 'eval')}, {share:.1%} of the text"
    if settings.held_out == "by_size" and 0 < content["eval_documents"] < settings.num_held_out:
        yield f"--num_held_out={settings.num_held_out} lowered: at most a tenth of documents and of text is held out"
    if content.get("equal_duplicates", 0) + content.get("near_duplicates", 0):
        yield (
            f"duplicates: {content['equal_duplicates']:,} equal, {content['near_duplicates']:,} nearly equal, "
            f"listed in duplicates.tsv; {content['left_out_documents']:,} documents left out, such as"
        )
        yield from (f"  {line}" for line in duplicates)
    if content["left_out"]:
        yield "found besides: " + ", ".join(f"{number:,} {kind}" for kind, number in content["left_out"].items())


def _amount(content: dict[str, Any], part: str) -> str:
    documents, sentences, num_bytes = (content[f"{part}_{unit}"] for unit in ("documents", "sentences", "bytes"))
    return f"{documents:,} documents, {sentences:,} sentences, {num_bytes / 1e6:,.1f} MB"
