"""A check of this project on a GPU machine, whose report its owner can send back: `bash benchmarks/gpu_check.sh`.

`plan` says which parts there are and in which order, `runner` runs each in a process of its own, which is `child`, and
`report` makes the page. The parts: `start` (does anything work), `updates` (updates of a run's own graph: placement,
speed, profile), `numbers` (beside the CPU's), `commands` (whole runs).
"""
