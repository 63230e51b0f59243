#!/usr/bin/env bash
# Checks this project on a machine with a GPU, and packs a report that its owner can send back.
#   bash benchmarks/gpu_check.sh [--minutes=10] [--output_dir=results/gpu_check]
# Correctness beside the CPU, speed and utilization, XLA's compilations, memory, versions. At most --minutes after the
# installation. Uses one GPU, the first of CUDA_VISIBLE_DEVICES. Without a GPU: small models on the CPU, which says so.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../scripts/_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/_launch.sh"

# shellcheck disable=SC2119
use_environment
require_gpus
PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}" launch_last "$python" -m benchmarks.gpu_check "$@"
