#!/usr/bin/env bash
# Pretrains on all GPUs, one process per GPU. python -m bert_pretrain.launch makes the command for mpirun.
#   bash scripts/run_multi_card_FPS.sh               trains the embedded demo; writes to ./results/demo_multi_card
#   bash scripts/run_multi_card_FPS.sh --input_files_dir=DIR --bert_config_file=FILE [flags of bert_pretrain.run]
#                                                    trains on your data; configs/run/seed_multi_card.flags has the
#                                                    defaults
#   --max_restarts=N         after a crash, starts again from the last checkpoint, at most N times, on the hosts that answer
#   --rejoin_seconds=10      how long a restart waits for a host that does not
#   NP=8                     number of processes; default: IX_NUM_CUDA_VISIBLE_DEVICES, CUDA_VISIBLE_DEVICES, all GPUs
#   HOSTFILE=hosts           several machines; a file of lines "name slots=8"
#   HOROVOD_LAUNCHER=gloo    horovodrun --gloo instead of mpirun
#   MPIRUN_ARGS="..."        more arguments for mpirun
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"

if [ $# -eq 0 ]; then run_steps ""; fi
use_environment --horovod
if [ $# -eq 0 ]; then
  prepare_demo
  # The demo's batch of 16, divided among the processes. The launcher reports an invalid NP.
  ranks="${NP:-2}"
  [[ "$ranks" =~ ^[1-9][0-9]*$ ]] || ranks=2
  set -- "${demo_flags[@]}" "--train_batch_size=$(((15 + ranks) / ranks))" "--output_dir=$PWD/results/demo_multi_card"
else
  set -- "--flagfile=$project/configs/run/seed_multi_card.flags" "$@"
fi
launch_module bert_pretrain.launch "$@"
