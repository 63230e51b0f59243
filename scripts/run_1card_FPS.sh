#!/usr/bin/env bash
# Pretrains on one card.
#   bash scripts/run_1card_FPS.sh                    the embedded demo, into ./results/demo_1card
#   bash scripts/run_1card_FPS.sh --input_files_dir=DIR --bert_config_file=FILE [flags of bert_pretrain.run]
#                                                    yours, after the defaults in configs/run/seed_1card.flags
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

# shellcheck disable=SC2119
use_environment
if [ $# -eq 0 ]; then
  prepare_demo
  set -- "${demo_flags[@]}" "--output_dir=$PWD/results/demo_1card"
else
  set -- "--flagfile=$project/configs/run/seed_1card.flags" "$@"
fi
launch_last "$python" -m bert_pretrain.run "$@"
