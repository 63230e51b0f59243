"""The settings of the device that a run computes on."""

from __future__ import annotations

import dataclasses
from typing import Optional

from bert_pretrain.config.option import option, require, require_numbers

_MAX_THREADS = 1024
_MAX_PROFILED = 1000  # updates: a profile is held in memory until it is written


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """Device: precision, kernels, threads, memory."""

    amp: bool = option(
        True, "Mixed precision: products of --amp_dtype, float32 weights. On CPUs for --amp_dtype=bfloat16 alone."
    )
    amp_dtype: str = option(
        "auto",
        "Dtype of products under --amp. float16: with a dynamic loss scale, on GPUs. bfloat16: without; on CPUs in the "
        "encoder's linear layers, if it is faster than float32 there. auto: on GPUs bfloat16 from compute capability "
        "8.0 on, else float16; on CPUs float32.",
        choices=["auto", "float16", "bfloat16"],
    )
    manual_fp16: bool = option(False, "Same as --amp.")
    use_xla: bool = option(
        True, "Compile with XLA what is faster compiled: on GPUs, and on CPUs without native kernels."
    )
    native_kernels: bool = option(
        True, "On a CPU, use C++ kernels, which are compiled for it if there is a C++ compiler."
    )
    intra_op_threads: int = option(0, "Threads of one operation; 0: one per core that this process may use.")
    inter_op_threads: int = option(1, "Operations that run at the same time.")
    recompute: bool = option(
        False, "Keep only the input of each layer and run the layer again in the backward pass: less memory, more time."
    )
    peak_tflops: Optional[float] = option(
        None, "Peak TFLOP/s of the GPU, for the utilization in results.json; a CPU's matmul rate is measured."
    )
    profile_updates: int = option(
        0,
        "Write a profile of this many updates, after the first three of a start, into output_dir for TensorBoard. 0: "
        "none. Of several ranks, rank 0 alone.",
    )
    enable_device_warmup: bool = option(
        False, "Before the first update, compute one that is neither timed nor applied, so that compiling is not timed."
    )
    iterations_per_loop: int = option(
        1000, "Updates per session.run on a TPU; each session.run is one update here.", no_effect=True
    )

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(
            0 <= self.profile_updates <= _MAX_PROFILED,
            f"--profile_updates must be 0 to {_MAX_PROFILED}, got {self.profile_updates}",
        )
        for name, least in (("intra_op_threads", 0), ("inter_op_threads", 1)):
            value = getattr(self, name)
            require(least <= value <= _MAX_THREADS, f"--{name} must be {least} to {_MAX_THREADS}, got {value}")
        require(
            self.peak_tflops is None or self.peak_tflops > 0, f"--peak_tflops must be above 0, got {self.peak_tflops}"
        )
