#!/usr/bin/env bash
# From text to shards for training and evaluation, step by step; each step that is finished is not done again.
#   bash scripts/make_data.sh SOURCE OUTPUT_DIR [flags of bert_pretrain.make_data for the shards]
# SOURCE      a Wikipedia dump (pages-articles .xml or .xml.bz2), or a folder of text: .txt, .md, .rst, .html, .jsonl,
#             .parquet, also as .gz, .bz2, .xz or .zst
# OUTPUT_DIR  gets extracted/ (a dump's articles), text/, vocab.txt, train/ and eval/
#   VOCAB_FILE=vocab.txt     a vocabulary that is there; else one of VOCAB_SIZE entries is trained
#   VOCAB_SIZE, NUM_SHARDS   else 30522 entries and 500 shards, or what a smaller text gives
#   NUM_HELD_OUT=10000       documents for evaluation at most; of a dump so many, drawn by MLPerf's rule; 0: no eval/
#   NUM_EVAL_EXAMPLES=10000  examples made of them at most
#   TEXT_FLAGS               more flags for --make_text, such as "--language=de --documents=blank_line"
#   TEXT_FLAGFILE            a flagfile with such flags
#   NP=8                     processes; else one for each core
# MLPerf's training data (512 tokens, ten passes, the records of Google's script):
#   VOCAB_FILE=vocab.txt bash scripts/make_data.sh enwiki-pages-articles.xml.bz2 wiki --flagfile=configs/run/mlperf_data.flags
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

if [ $# -lt 2 ]; then
  print_usage >&2
  exit 2
fi
run_steps "$2" "$@"
use_environment --data
launch_module bert_pretrain.make_data.script "$@"
