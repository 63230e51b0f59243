#!/usr/bin/env bash
# From a folder of text to a model, in one command; each step that is finished is not done again.
#   bash scripts/pretrain_text.sh FOLDER_OF_TEXT OUT [--from=HF_FOLDER] [--hours=H] [more flags]
# FOLDER_OF_TEXT  any text: .txt, .md, .rst, .html, .jsonl, .parquet, also as .gz, .bz2, .xz or .zst
# OUT             gets data/ (vocabulary and shards), recipe/ (what was chosen), run/ (training), model/ (Hugging Face)
#   --from=HF_FOLDER   continues this model, with its vocabulary; else a new one
#   --hours=H          time for training; else minutes for a small folder, at most a night on a CPU
#   more flags         of make_data and bert_pretrain.run; `--help` lists them. All others are chosen and printed
#   --max_restarts=N   as for run_multi_card_FPS.sh, also --rejoin_seconds=S; may differ from start to start
#   NP=8, HOSTFILE     as for run_multi_card_FPS.sh; NUM_SHARDS, NUM_HELD_OUT, NUM_EVAL_EXAMPLES as for make_data.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

if [ $# -lt 2 ] && [ "${1:-}" != --help ]; then
  print_usage >&2
  exit 2
fi
run_steps "${2:-}" "$@"
use_environment --data
launch_module bert_pretrain.pretrain_text "$@"
