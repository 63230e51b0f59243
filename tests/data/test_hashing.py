import numpy as np

from bert_pretrain.data.hashing import hash_words, splitmix64


def test_splitmix64_gives_the_published_stream():
    # First outputs of the reference implementation for seed 1234567.
    state, gamma = np.uint64(1234567), np.uint64(0x9E3779B97F4A7C15)
    outputs = splitmix64(state + np.arange(3, dtype=np.uint64) * gamma)
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_words_are_hashed_one_after_the_other():
    rows = np.array([5, 2**63], np.uint64)
    hashed = hash_words(3, rows, 2**64 - 1)
    assert hashed.dtype == np.uint64 and len(set(hashed.tolist())) == 2
    assert hash_words(3, 5, 2**64 - 1).tolist() == hashed[:1].tolist() != hash_words(5, 3, 2**64 - 1).tolist()
