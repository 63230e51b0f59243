"""Signatures and duplicates, against Jaccard similarity computed directly."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from bert_pretrain.make_data.text import duplicates
from bert_pretrain.make_data.text.duplicates import SignatureFiles

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("datasketch"), reason="needs datasketch")


def signature_files(tmp_path: Path, signatures: np.ndarray) -> SignatureFiles:
    blocks = np.split(signatures, [len(signatures) // 3])
    return SignatureFiles(str(tmp_path), blocks, len(signatures))


def jaccard(one: list[str], other: list[str]) -> float:
    first, second = ({tuple(text[i : i + 5]) for i in range(len(text) - 4)} for text in (one, other))
    return len(first & second) / len(first | second)


def changed_texts() -> tuple[list[list[str]], list[list[str]]]:
    """30 texts of 1000 words, and copies in which more and more words are others."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(5000)]
    originals = [rng.choices(words, k=1000) for _ in range(30)]
    changed = []
    for number, text in enumerate(originals):
        copy = list(text)
        for place in rng.sample(range(1000), k=2 * number):
            copy[place] = rng.choice(words)
        changed.append(copy)
    return originals, changed


def test_signatures_are_the_same_for_all_versions_of_datasketch() -> None:
    document = [" ".join(f"w{number}" for number in range(200))]
    digest, signature = duplicates.Signer().sign(document)
    assert signature.dtype == np.uint32 and signature[:3].tolist() == [7065372, 10647520, 59496849]
    assert digest == duplicates.Signer().sign([document[0].upper()])[0]


def test_near_duplicates_are_those_of_high_jaccard_similarity(tmp_path: Path) -> None:
    originals, changed = changed_texts()
    signer = duplicates.Signer()
    signed = [signer.sign([" ".join(text)]) for text in originals + changed]
    hashes = np.array([one[0] for one in signed], np.uint64)
    files = signature_files(tmp_path, np.stack([one[1] for one in signed]))
    found = duplicates.find_duplicate_documents(hashes, files)
    assert (found.original[:30] == -1).all()
    chosen = np.arange(60) < 30
    near = duplicates.find_similar_to(chosen, hashes, files)
    assert (near == (found.original >= 0)).all()
    for number in range(30):
        true = jaccard(originals[number], changed[number])
        if true > 0.93 or true < 0.67:  # 128 hashes of a quarter of the shingles: a deviation of about 0.04
            assert (found.original[30 + number] == number) == (true > 0.8), true
        if found.original[30 + number] >= 0:
            assert abs(found.similarity[30 + number] - true) < 0.13


def test_every_candidate_pair_is_decided_as_by_comparing_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    families = rng.integers(0, 2**32, (20, duplicates.NUM_HASHES), dtype=np.uint32)
    signatures = families[rng.integers(0, 20, 300)]
    noise = rng.random(signatures.shape) < rng.random((300, 1)) * 0.3
    signatures[noise] = rng.integers(0, 2**32, noise.sum(), dtype=np.uint32)
    signatures[::50] = 0  # documents without a signature
    hashes = rng.integers(0, 250, 300).astype(np.uint64)
    found = duplicates.find_duplicate_documents(hashes, signature_files(tmp_path, signatures))
    first = {}
    for number, value in enumerate(hashes.tolist()):
        first.setdefault(value, number)
    bands = signatures.reshape(300, duplicates.NUM_BANDS, duplicates.BAND_WIDTH)
    for number in range(300):
        original = int(found.original[number])
        if original >= 0:
            assert original < number and found.original[original] == -1
        else:
            assert first[int(hashes[number])] == number
            stay = [other for other in range(number) if found.original[other] < 0 and signatures[other].any()]
            for other in stay:  # what stays is nearly equal to nothing earlier that stays and shares a band
                shares = (bands[other] == bands[number]).all(axis=1).any()
                similarity = (signatures[other] == signatures[number]).mean()
                assert not (shares and similarity >= duplicates.SIMILARITY)


def test_what_is_near_to_a_chosen_document_is_found_and_what_repeats_a_duplicate_is_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 2**32, duplicates.NUM_HASHES, dtype=np.uint32)
    first, middle, last = base.copy(), base.copy(), base.copy()
    first[:20] += 1
    last[-20:] += 1  # first and last are too different, middle is near to both
    files = signature_files(tmp_path, np.stack([first, middle, last]))
    hashes = np.arange(3, dtype=np.uint64)
    found = duplicates.find_duplicate_documents(hashes, files)
    assert found.original.tolist() == [-1, 0, 0]
    assert found.similarity.tolist() == [0, (128 - 20) / 128, (128 - 40) / 128]
    assert duplicates.find_similar_to(np.array([False, False, True]), hashes, files).tolist() == [False, True, False]
