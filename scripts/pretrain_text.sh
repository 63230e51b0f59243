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
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
if [ "$1" != --help ]; then run_steps "$2" "$@"; fi
use_environment --data
if [ "$1" = --help ]; then launch_last "$python" -m bert_pretrain.pretrain_text --help; fi
text="$1" out="$2"

step() { launch "$python" -m bert_pretrain.pretrain_text "$1" "$text" "$out" "${@:2}"; }

doing "checking the command"
step begin "${@:3}"
trainer=bert_pretrain.run launcher_flags=()
if [ "$(cat "$out/recipe/ranks" 2>/dev/null || echo "${NP:-1}")" != 1 ]; then
  use_environment --data --horovod
  trainer=bert_pretrain.launch
fi
if [ -f "$out/recipe/launcher.flags" ]; then read -ra launcher_flags <"$out/recipe/launcher.flags"; fi
TEXT_FLAGFILE="$out/recipe/text.flags" launch bash "$project/scripts/make_data.sh" "$text" "$out/data" \
  "--flagfile=$out/recipe/data.flags"
doing "choosing the recipe"
step choose "${@:3}"
doing "measuring the speed of training"
if [ "${DRY_RUN:-}" = 1 ]; then
  launch "$python" -m "$trainer" "--flagfile=$out/recipe/speed.flags"
elif [ ! -f "$out/recipe/train.flags" ]; then
  "$python" -m "$trainer" "--flagfile=$out/recipe/speed.flags" >"$out/recipe/speed.log"
fi
doing "starting the training"
step plan "${@:3}"
launch_last "$python" -m "$trainer" "--flagfile=$out/recipe/train.flags" ${launcher_flags[@]+"${launcher_flags[@]}"}
