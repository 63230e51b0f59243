#!/usr/bin/env bash
# Pretrains on all cards, one process a card; python -m bert_pretrain.launch decides how.
#   bash scripts/run_multi_card_FPS.sh               the embedded demo, into ./results/demo_multi_card
#   bash scripts/run_multi_card_FPS.sh --input_files_dir=DIR --bert_config_file=FILE [flags of bert_pretrain.run]
#                                                    yours, after the defaults in configs/run/seed_multi_card.flags
#   --max_restarts=N         start again from the last checkpoint after a crash, N times at the most
#   NP=8                     number of processes; else IX_NUM_CUDA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, the cards
#   HOSTFILE=hosts           several machines, lines "name slots=8"
#   HOROVOD_LAUNCHER=gloo    horovodrun --gloo instead of mpirun
#   MPIRUN_ARGS="..."        more arguments for mpirun
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

use_environment --horovod
if [ $# -eq 0 ]; then
  prepare_demo
  # The batch of 32 of the demo on one card, cut among the processes. What is no number, the launcher refuses.
  ranks="${NP:-2}"
  [[ "$ranks" =~ ^[1-9][0-9]*$ ]] || ranks=2
  set -- "${demo_flags[@]}" "--train_batch_size=$(((31 + ranks) / ranks))" "--output_dir=$PWD/results/demo_multi_card"
else
  set -- "--flagfile=$project/configs/run/seed_multi_card.flags" "$@"
fi
if [ -x "$python" ]; then exec "$python" -m bert_pretrain.launch "$@"; fi
launch "$python" -m bert_pretrain.launch "$@"
