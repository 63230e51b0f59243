"""transformers reads the folder: the same keys, logits, tokens and words."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pretrain.config.export import FillMaskConfig
from bert_pretrain.data.vocab import load_vocabulary
from bert_pretrain.export import verification
from bert_pretrain.hugging_face import tokenizer
from bert_pretrain.inference import answers
from bert_pretrain.inference.stored_model import Network, find_stored_model
from bert_pretrain.make_data.tokenization import LineTokenizer
from tests.export.conftest import Exported
from tests.references.random_examples import TINY

TEXT = "the cat is [MASK] and the [MASK] of dogs."
HEADS = {"BertForPreTraining": set(), "BertForMaskedLM": {"pooler", "seq_relationship"}, "BertModel": {"cls"}}


@pytest.fixture(scope="module", name="transformers")
def _transformers():
    pytest.importorskip("torch", reason="the interop extra: pip install -e .[interop]")
    return pytest.importorskip("transformers", reason="the interop extra: pip install -e .[interop]")


@pytest.mark.interop
@pytest.mark.parametrize("kind", HEADS)
def test_no_key_is_missing_and_only_other_heads_are_left_over(exported: Exported, transformers, kind: str) -> None:
    _, report = getattr(transformers, kind).from_pretrained(exported.hf_dir, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert all(HEADS[kind] & set(key.split(".")) for key in report["unexpected_keys"]), report["unexpected_keys"]


@pytest.mark.interop
def test_logits_agree_and_come_back(exported: Exported, transformers, tmp_path) -> None:
    examples = verification.random_examples(TINY)
    is_token = examples.mask > 0
    theirs = verification._logits_of_hugging_face(exported.hf_dir, examples)
    transformers.BertForPreTraining.from_pretrained(exported.hf_dir).save_pretrained(tmp_path)
    for path in (exported.hf_dir, str(tmp_path)):
        values = find_stored_model(path, "checkpoint").read_values()
        with Network(TINY, values) as network:
            ours = network.run(*examples)
        difference = (ours.masked_lm_logits - theirs.masked_lm)[is_token]
        assert np.abs(difference).max() < 1e-4
        assert np.abs(ours.next_sentence_logits - theirs.next_sentence).max() < 1e-4


@pytest.mark.interop
def test_the_pipeline_finds_our_words_in_the_same_order(exported: Exported, transformers) -> None:
    theirs = transformers.pipeline("fill-mask", model=exported.hf_dir)(TEXT)
    lines = [line.split() for line in answers.answer_lines(FillMaskConfig(), exported.hf_dir, [TEXT])]
    ours = [line for line in lines if line[0] != "[MASK]"]
    found = [word for words in theirs for word in words]
    entries = load_vocabulary(f"{exported.hf_dir}/vocab.txt").entries
    assert [word for _, word in ours] == [entries[word["token"]] for word in found]
    assert [float(share) for share, _ in ours] == pytest.approx([word["score"] for word in found], abs=1e-4)


@pytest.mark.interop
def test_pairs_have_segment_ids_and_long_words_our_limit(exported: Exported, transformers) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(exported.hf_dir)
    assert theirs("the cat", "of")["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert theirs.model_max_length == TINY.max_position_embeddings
    assert [len(theirs.tokenize("a" * length)) for length in (150, 200, 201)] == [150, 200, 1]


def is_long_known(char: str) -> bool:
    """Whether Unicode 3.2 has the character in its present category: the tokenizers library knows no new ones."""
    return unicodedata.ucd_3_2_0.category(char) == unicodedata.category(char)


CHARACTERS = st.characters(max_codepoint=0x4FFF, exclude_characters="Σ", exclude_categories=["Cn", "Cs"])


@settings(max_examples=300, deadline=None)
@given(st.text(CHARACTERS.filter(is_long_known), max_size=60))
def test_the_tokenizer_is_ours(exported: Exported, text: str) -> None:
    line = " ".join(text.split("\n"))
    vocabulary = load_vocabulary(f"{exported.hf_dir}/vocab.txt")
    for lower_case in (True, False):
        theirs = tokenizer.make_tokenizer(vocabulary, lower_case).encode(line, add_special_tokens=False).ids
        assert theirs == LineTokenizer(vocabulary, lower_case).encode([line])[0].tolist()
