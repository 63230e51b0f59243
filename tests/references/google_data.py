"""google-research/bert's create_pretraining_data.py as published on PyPI (bert-tensorflow 1.0.4).

    python tests/references/google_data.py --input_file=... --output_file=... --vocab_file=...
    python tests/references/google_data.py CASES.json      # a list of lists of such flags, one run after the other

Where it differs from the repository's master, it is changed to that: load_vocab counts repeated lines there.
The published script is older than --do_whole_word_mask. With that flag, its masking function is replaced by a
statement of the rule that Google announced with the whole-word models: a ## piece belongs with the piece before it;
words are shuffled instead of tokens; a word that would exceed the number of predictions is passed over; each token
of a chosen word draws its own replacement.
"""

import collections
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(arguments):
    from absl import flags
    from bert import create_pretraining_data as script
    from bert import tokenization

    tokenization.load_vocab = load_vocab
    published = script.create_masked_lm_predictions
    for case in _cases(arguments):
        script.create_masked_lm_predictions = mask_whole_words if "--do_whole_word_mask" in case else published
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        flags.FLAGS(["script", *(flag for flag in case if flag != "--do_whole_word_mask")])
        script.main(None)


def _cases(arguments):
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        with open(arguments[0], encoding="utf-8") as file:
            return json.load(file)
    return [arguments]


def load_vocab(vocab_file):
    """load_vocab of google-research/bert's master, tokenization.py."""
    vocab = collections.OrderedDict()
    index = 0
    with open(vocab_file, encoding="utf-8", newline="\n") as reader:
        while True:
            token = reader.readline()
            if not token:
                break
            token = token.strip()
            vocab[token] = index
            index += 1
    return vocab


def mask_whole_words(tokens, masked_lm_prob, max_predictions_per_seq, vocab_words, rng):
    words = []
    for index, token in enumerate(tokens):
        if token in ("[CLS]", "[SEP]"):
            continue
        if words and token.startswith("##"):
            words[-1].append(index)
        else:
            words.append([index])
    rng.shuffle(words)
    wanted = min(max_predictions_per_seq, max(1, round(len(tokens) * masked_lm_prob)))
    output, chosen = list(tokens), []
    for word in words:
        if len(chosen) >= wanted:
            break
        if len(chosen) + len(word) > wanted:
            continue
        for index in word:
            if rng.random() < 0.8:
                output[index] = "[MASK]"
            elif rng.random() >= 0.5:
                output[index] = vocab_words[rng.randint(0, len(vocab_words) - 1)]
            chosen.append(index)
    chosen.sort()
    return output, chosen, [tokens[index] for index in chosen]


if __name__ == "__main__":
    main(sys.argv[1:])
