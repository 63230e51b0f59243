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
  sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
run_steps "$2" "$@"
use_environment --data
source="$1" output="$2"
shift 2
np="${NP:-$(nproc)}"
vocabulary="${VOCAB_FILE:-$output/vocab.txt}"

make_data() { launch "$python" -m bert_pretrain.make_data "--num_processes=$np" "$@"; }

read -ra text_flags <<<"${TEXT_FLAGS:-}"
if [ -n "${TEXT_FLAGFILE:-}" ]; then text_flags+=("--flagfile=$TEXT_FLAGFILE"); fi
eval_mode=()
launch mkdir -p "$output"
case "$source" in
  *.xml | *.xml.bz2)
    if [ ! -d "$output/extracted" ]; then
      doing "extracting the articles"
      launch rm -rf "$output/extracted.partial"
      launch "$python" -m wikiextractor.WikiExtractor "$source" --output "$output/extracted.partial" \
        --json --bytes 30M --processes "$np"
      launch mv "$output/extracted.partial" "$output/extracted"
    fi
    source="$output/extracted"
    text_flags+=(--held_out=mlperf)
    eval_mode=(--mode=exact)
    ;;
esac
doing "making the text"
make_data --make_text "--input_file=$source" "--output_dir=$output/text" "--num_held_out=${NUM_HELD_OUT:-10000}" \
  ${text_flags[@]+"${text_flags[@]}"}
# A shard needs documents enough to draw random second sentences from, and an entry text enough to occur in.
shards=500 entries=30522 report="$output/text/text_report.json"
if [ -f "$report" ]; then
  read -r shards entries < <("$python" -c '
import json, sys
report = json.load(open(sys.argv[1]))
num_bytes, documents = report["train_bytes"], report["train_documents"]
print(max(1, min(500, num_bytes // 1_000_000, documents // 20)), min(30522, 1000 + int(7 * num_bytes**0.5)))
' "$report")
fi
shards="${NUM_SHARDS:-$shards}" entries="${VOCAB_SIZE:-$entries}"
if [ "$shards" != 500 ]; then echo "$output: $shards shards, a vocabulary of $entries entries" >&2; fi
eval_text=("--eval_input_file=$output/text/eval/*.txt") folders="$output/train,$output/eval"
if [ "${NUM_HELD_OUT:-10000}" = 0 ]; then
  echo "NUM_HELD_OUT=0: no text is held out, so $output gets no eval folder" >&2
  eval_text=() folders="$output/train"
fi
if [ ! -f "$vocabulary" ]; then
  doing "making the vocabulary"
  make_data --train_vocab "--input_file=$output/text/train/*.txt" ${eval_text[@]+"${eval_text[@]}"} \
    "--vocab_file=$vocabulary" "--vocab_size=$entries" "$@" "--num_shards=$shards"
fi
doing "making the shards for training"
make_data "--vocab_file=$vocabulary" "$@" "--input_file=$output/text/train/*.txt" "--output_dir=$output/train" \
  "--num_shards=$shards"
if [ "${NUM_HELD_OUT:-10000}" != 0 ]; then
  doing "making the shards for evaluation"
  make_data "--vocab_file=$vocabulary" "$@" "--input_file=$output/text/eval/*.txt" "--output_dir=$output/eval" \
    --num_shards=1 ${eval_mode[@]+"${eval_mode[@]}"} "--num_picked_examples=${NUM_EVAL_EXAMPLES:-10000}"
fi
doing "checking the shards"
launch_last "$python" -m bert_pretrain.check_data "--input_files_dir=$folders" "--vocab_file=$vocabulary"
