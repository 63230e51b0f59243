#!/usr/bin/env bash
# Checks this project on a machine with GPUs, and leaves a page that its owner can send back.
#   bash benchmarks/gpu_check.sh [--minutes=10] [--device=cpu] [--steps=...] [--output_dir=results/gpu_check]
# Whether anything works, in the first minute; then placement, results beside the CPU's, speed, kernels, equal bits, a whole
# run, several GPUs. At most --minutes after the installation. --device=cpu: all of it with small models, without a GPU.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../scripts/_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/_launch.sh"

# Several GPUs are compared where Horovod can be installed.
num_gpus="$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true)"
if [ "$num_gpus" -gt 1 ]; then
  use_environment --horovod || use_environment
else
  # shellcheck disable=SC2119
  use_environment
fi
PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}" launch_last "$python" -m benchmarks.gpu_check "$@"
