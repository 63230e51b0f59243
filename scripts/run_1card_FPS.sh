#!/usr/bin/env bash
# Pretrains on one GPU, or on the CPU.
#   bash scripts/run_1card_FPS.sh                    trains the embedded demo; writes to ./results/demo_1card
#   bash scripts/run_1card_FPS.sh --input_files_dir=DIR --bert_config_file=FILE [flags of bert_pretrain.run]
#                                                    trains on your data; configs/run/seed_1card.flags has the defaults
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

if [ $# -eq 0 ]; then run_steps ""; fi
# shellcheck disable=SC2119
use_environment
if [ $# -eq 0 ]; then
  prepare_demo
  set -- "${demo_flags[@]}" "--output_dir=$PWD/results/demo_1card"
else
  set -- "--flagfile=$project/configs/run/seed_1card.flags" "$@"
fi
launch_last "$python" -m bert_pretrain.run "$@"
