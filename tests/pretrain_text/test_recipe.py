"""The recipes that text and machine lead to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.model_sizes import SIZES
from bert_pretrain.pretrain_text import recipe
from bert_pretrain.pretrain_text.recipe import Corpus, Machine

TINY, SMALL, BASE = (SIZES[name].config(30_522) for name in ("tiny", "small", "base"))
LAPTOP, SERVER, GPU, GPUS = Machine(1, 2, 0), Machine(1, 32, 0), Machine(1, 8, 1), Machine(8, 64, 8)


def corpus(megabytes: float) -> Corpus:
    """English text: 4.5 bytes a token, 100 tokens a record, a tenth held out."""
    tokens = int(megabytes * 1e6 / 4.5)
    return Corpus(tokens // 100, tokens, min(10_000, tokens // 1000))


@pytest.mark.parametrize(
    ("megabytes", "machine", "name", "hours"),
    [
        (0.05, LAPTOP, "tiny", 0.05),
        (1, LAPTOP, "tiny", 0.185),
        (100, LAPTOP, "mini", 8),
        (100, SERVER, "small", 8),
        (100, GPU, "medium", 18.5),
        (1000, LAPTOP, "mini", 8),
        (1000, GPU, "base", 24),
        (14_000, LAPTOP, "mini", 8),
        (14_000, GPU, "base", 24),
        (14_000, GPUS, "large", 24),
    ],
)
def test_models_and_hours_grow_with_text_and_machine(
    megabytes: float, machine: Machine, name: str, hours: float
) -> None:
    text = corpus(megabytes)
    chosen = recipe.default_hours(text, machine)
    assert chosen == pytest.approx(hours, rel=0.01)
    assert recipe.choose_model(text, machine, chosen, 30_522) == SIZES[name].config(30_522)


@settings(deadline=None, max_examples=300)
@given(
    megabytes=st.floats(0.01, 20_000),
    machine=st.builds(Machine, st.integers(1, 64), st.integers(1, 256), st.just(0)),
    hours=st.floats(0.01, 1000),
    speed=st.floats(0.1, 1e5),
    size=st.sampled_from(["tiny", "small", "base"]),
)
def test_training_and_evaluation_fit_into_the_time(
    megabytes: float, machine: Machine, hours: float, speed: float, size: str
) -> None:
    text = corpus(megabytes)
    flags = recipe.training_flags(text, machine, SIZES[size].config(30_522), hours, speed, False, {})
    batch = machine.num_ranks * flags["train_batch_size"] * flags["num_accumulation_steps"]
    seconds = recipe.expected_seconds(text, flags, machine, speed)
    least = 10 * batch + 7 * text.num_eval_records / 3  # ten updates, and all evaluations
    assert seconds <= max(hours * 3600, least / speed)
    assert flags["num_train_steps"] * batch <= max(recipe.MAX_EPOCHS * text.num_records, 10 * batch)
    assert 1 <= flags["train_batch_size"] <= 32 and batch <= 512
    assert 0 <= flags["num_warmup_steps"] < flags["num_train_steps"]
    assert flags["samples_between_eval"] >= 1 and 0 < flags["learning_rate"] <= 0.01


def test_what_the_user_gives_stays_and_changes_what_follows_from_it() -> None:
    given_flags = {"num_train_steps": 5000, "train_batch_size": 8, "clip_norm": 0.5}
    flags = recipe.training_flags(corpus(1), LAPTOP, BASE, 1.0, 100.0, False, given_flags)
    assert given_flags.items() <= flags.items()
    assert (flags["num_warmup_steps"], flags["num_accumulation_steps"]) == (500, 1)
    assert flags["samples_between_eval"] == 8000
    assert recipe.training_flags(corpus(1), LAPTOP, BASE, 1.0, 1.0, False, given_flags) == {
        **flags,
        "save_checkpoints_steps": recipe.training_flags(corpus(1), LAPTOP, BASE, 1.0, 1.0, False, given_flags)[
            "save_checkpoints_steps"
        ],
    }  # a measurement then changes nothing else


def test_a_continued_model_has_a_small_rate() -> None:
    """google-research/bert: 2e-5 at 32 examples an update, and less than 1e-4."""
    assert recipe.learning_rate(32, 500, "adam", True, BASE) == 2e-5
    flags = recipe.training_flags(corpus(100), GPU, BASE, 10.0, 1000.0, True, {})
    assert (flags["optimizer_type"], flags["learning_rate"]) == ("adam", 5.7e-5)


def test_rates_of_new_models() -> None:
    assert recipe.learning_rate(32, 450, "lamb", False, BASE) == 0.01  # the embedded demo's
    assert recipe.learning_rate(32_768, 10**6, "lamb", False, BASE) == 0.005  # You et al.
    rates = [recipe.learning_rate(256, updates, "lamb", False, BASE) for updates in (1000, 10_000, 100_000, 10**6)]
    assert rates == sorted(rates, reverse=True)
    assert recipe.learning_rate(256, 10**6, "adam", False, BASE) == 1e-4  # Devlin et al.


def test_small_new_models_are_trained_as_the_study_found_best() -> None:
    flags = recipe.training_flags(corpus(1), LAPTOP, TINY, 0.2, 100.0, False, {})
    assert (flags["optimizer_type"], flags["learning_rate"], flags["initialization"]) == ("adamw", 2e-3, "informed")
    assert (flags["train_batch_size"], flags["num_accumulation_steps"]) == (16, 1)
    assert (flags["masked_lm_prob"], flags["max_masked_tokens"], flags["next_sentence_weight"]) == (0.3, 39, 0.0)
    assert recipe.learning_rate(16, 1000, "adamw", False, SMALL) == 1e-3
    static = recipe.training_flags(corpus(1), LAPTOP, TINY, 0.2, 100.0, False, {"dynamic_masking": False})
    assert "max_masked_tokens" not in static
    for model, is_continued in ((BASE, False), (TINY, True)):
        flags = recipe.training_flags(corpus(1), LAPTOP, model, 0.2, 100.0, is_continued, {})
        assert "initialization" not in flags and "next_sentence_weight" not in flags


def test_a_rate_that_no_measurement_supports_is_asked_for() -> None:
    with pytest.raises(ValueError, match="give --learning_rate"):
        recipe.training_flags(corpus(1), LAPTOP, BASE, 0.2, 100.0, False, {"optimizer_type": "adamw"})


def test_records_are_those_of_the_published_recipes() -> None:
    assert recipe.data_flags({})["max_predictions_per_seq"] == 20
    assert recipe.data_flags({"max_seq_length": 512})["max_predictions_per_seq"] == 77
    assert recipe.data_flags({"max_predictions_per_seq": 3})["max_predictions_per_seq"] == 3
