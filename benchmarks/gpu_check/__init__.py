"""A check of this project on a GPU machine, whose report its owner can send back: `bash benchmarks/gpu_check.sh`."""
