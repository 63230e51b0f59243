"""Statistics to the numbers that people read."""

from __future__ import annotations

from typing import Optional

from bert_pretrain.train.forward import Statistics


def ratio(numerator: float, denominator: float) -> Optional[float]:
    """numerator / denominator, or None where nothing was counted."""
    return float(numerator) / float(denominator) if denominator else None


def summarize(sums: Statistics) -> dict[str, Optional[float]]:
    """Losses in nats per masked token and per example, accuracies as shares; None where nothing was counted."""
    return {
        "masked_lm_loss": ratio(sums.masked_lm_loss, sums.masked_lm_count),
        "masked_lm_accuracy": ratio(sums.masked_lm_correct, sums.masked_lm_count),
        "next_sentence_loss": ratio(sums.next_sentence_loss, sums.next_sentence_count),
        "next_sentence_accuracy": ratio(sums.next_sentence_correct, sums.next_sentence_count),
    }
