"""tokenizer.json and its neighbours for a vocab.txt, made by the tokenizers library."""

from __future__ import annotations

import json
import os
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bert_pretrain.data.vocab import SPECIAL_TOKENS, Vocabulary

_MAX_WORD_CHARS = 200  # as make_data/tokenization.py and google-research/bert; BertTokenizer's default is 100


def make_tokenizer(vocabulary: Vocabulary, lower_case: bool) -> Tokenizer:
    """Google's tokenizer as a pipeline of the tokenizers library; adds [CLS] and [SEP]."""
    numbered = vocabulary.numbered()
    tokenizer = Tokenizer(models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=_MAX_WORD_CHARS))
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in numbered])
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lower_case, lowercase=lower_case
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, numbered[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def special_tokens_map() -> dict[str, str]:
    """The content of special_tokens_map.json."""
    return {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}


def tokenizer_settings(lower_case: bool, max_tokens: int) -> dict[str, Any]:
    """The content of tokenizer_config.json.

    BertTokenizer of transformers 5 would make a tokenizer of its own from vocab.txt, with other limits; this class
    takes tokenizer.json as it is, in transformers 4, too.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],  # else no token_type_ids
        "do_lower_case": lower_case,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "model_max_length": max_tokens,
        **special_tokens_map(),
    }


def read_settings(folder: str) -> dict[str, Any]:
    """The content of tokenizer_config.json in a folder, {} without one. ValueError where it cannot be read."""
    path = os.path.join(folder, "tokenizer_config.json")
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}; mend it, or give --do_lower_case") from None
    return content if isinstance(content, dict) else {}
