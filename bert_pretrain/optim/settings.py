"""The settings of the optimizers and of the learning rate's schedule. Standard library only, as config/."""

from __future__ import annotations

import dataclasses

from bert_pretrain.config.option import Needs, OnResume, RefusedOnResume, option, require, require_numbers

_LARGEST_BETA = 1 - 2**-24  # larger numbers below 1 are 1 as a float32
MAX_MICRO_BATCHES = 2**20  # dropout masks are numbered by update and micro-batch


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimization: learning rate, batch, optimizer."""

    optimizer_type: str = option(
        "lamb",
        "lamb as in MLPerf's reference; adamw: AdamW with bias correction, as in PyTorch; adam: AdamW without it, as "
        "in google-research/bert.",
        ("lamb", "adamw", "adam"),
        on_resume=RefusedOnResume("the checkpoint holds the moments of another optimizer"),
    )
    learning_rate: float = option(5e-5, "Peak learning rate, before --lr_scaling.", on_resume=OnResume.RATE)
    lr_scaling: str = option(
        "linear",
        "linear: with --horovod, --learning_rate is multiplied by the number of ranks; none: it is used as given.",
        ("linear", "none"),
        on_resume=OnResume.RATE,
    )
    num_train_steps: int = option(100_000, "Updates after which training is complete.", on_resume=OnResume.RATE)
    num_warmup_steps: int = option(10_000, "Updates of linear warm-up; 0 means none.", on_resume=OnResume.RATE)
    start_warmup_step: int = option(
        0,
        "Update, at most 0, at which the warm-up line crosses zero; MLPerf recipes use -76 and -100.",
        on_resume=OnResume.RATE,
    )
    lr_schedule: str = option(
        "polynomial",
        "How the rate falls. polynomial: from update 0 on, also below the warm-up, as in MLPerf's reference; linear "
        "and cosine: from the end of the warm-up on, to 0; constant: it stays until the last --num_decay_steps "
        "updates, in which it falls linearly to 0.",
        ("polynomial", "linear", "cosine", "constant"),
        on_resume=OnResume.RATE,
    )
    poly_power: float = option(1.0, "Power of the polynomial decay to zero; 1 is linear.", on_resume=OnResume.RATE)
    num_decay_steps: int = option(
        0, "With --lr_schedule=constant: updates of the linear decay at the end; 0: none.", on_resume=OnResume.RATE
    )
    num_accumulation_steps: int = option(
        1, "Micro-batches summed into one update.", on_resume=OnResume.BATCH, of_update=True
    )
    weight_decay_rate: float = option(
        0.01,
        "Weight decay, for all optimizers; LayerNorm and bias variables are exempt.",
        on_resume=OnResume.AT_ONCE,
        old_name="lamb_weight_decay_rate",
    )
    beta_1: float = option(
        0.9,
        "Decay rate of the first moment, for all optimizers.",
        on_resume=RefusedOnResume(
            "beta1_power and the moments of the checkpoint belong to the other value",
            ("optimizer_type", "adam"),
        ),
        old_name="lamb_beta_1",
    )
    beta_2: float = option(
        0.999,
        "Decay rate of the second moment, for all optimizers.",
        on_resume=RefusedOnResume(
            "beta2_power and the moments of the checkpoint belong to the other value",
            ("optimizer_type", "adam"),
        ),
        old_name="lamb_beta_2",
    )
    log_epsilon: int = option(-6, "Base-10 logarithm of epsilon, for all optimizers.", on_resume=OnResume.AT_ONCE)
    next_sentence_weight: float = option(
        1.0,
        "Weight of the next-sentence loss beside the masked-LM loss; 0: it is neither computed nor needed in the data, "
        "and its head and the pooler keep their initial weights.",
        on_resume=OnResume.AT_ONCE,
        of_update=True,
    )
    clip_norm: float = option(
        1.0,
        "Largest global norm of the gradient; larger ones are scaled down to it. 0 turns clipping off.",
        on_resume=OnResume.AT_ONCE,
    )
    init_loss_scale: int = option(
        2**15,
        "Initial loss scale of float16 training for a micro-batch; an update's loss starts with it times its "
        "micro-batches over all ranks.",
        on_resume=OnResume.UNUSED,
    )
    allreduce_post_accumulation: bool = option(
        False,
        "Gradients are always all-reduced once, after accumulation; the sums are the same.",
        no_effect=True,
        on_resume=OnResume.NONE,
        set_by_script=True,
        needs=Needs("horovod", "one process has nothing to all-reduce"),
    )
    allreduce_fp16: bool = option(
        False,
        "All-reduce gradients in float16: half the bytes, less precision.",
        on_resume=OnResume.AT_ONCE,
        needs=Needs("horovod", "one process has nothing to all-reduce"),
    )

    rank_invariant: bool = option(
        False,
        "Weights that are the same bits for any number of ranks: fixed micro-batches, gradients summed exactly in "
        "64-bit fixed point. Needs --lr_scaling=none.",
        on_resume=OnResume.INVARIANT,
        of_update=True,
    )
    invariant_micro_batches: int = option(
        0,
        "With --rank_invariant: micro-batches of an update over all ranks, which must stay the same in a run; "
        "0: ranks x num_accumulation_steps.",
        on_resume=OnResume.MICRO_BATCHES,
        of_update=True,
        needs=Needs("rank_invariant", "micro-batches follow from the other flags"),
    )

    @property
    def epsilon(self) -> float:
        """The optimizers' epsilon, added to the square root of the second moment."""
        return 10.0**self.log_epsilon

    def check(self) -> None:
        """ValueError for an invalid setting."""
        require_numbers(self)
        require(self.learning_rate >= 0, f"--learning_rate must be at least 0, got {self.learning_rate}")
        for name in ("num_train_steps", "num_accumulation_steps", "init_loss_scale"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1, got {getattr(self, name)}")
        require(
            self.num_accumulation_steps <= MAX_MICRO_BATCHES,
            f"--num_accumulation_steps must be at most {MAX_MICRO_BATCHES}, got {self.num_accumulation_steps}",
        )
        for name in ("num_warmup_steps", "num_decay_steps", "clip_norm", "weight_decay_rate", "next_sentence_weight"):
            require(getattr(self, name) >= 0, f"--{name} must be at least 0, got {getattr(self, name)}")
        for name in ("beta_1", "beta_2"):
            value = getattr(self, name)
            require(0 <= value <= _LARGEST_BETA, f"--{name} must be in [0, 1), also as a float32, got {value}")
        require(
            self.invariant_micro_batches >= 0,
            f"--invariant_micro_batches must be at least 0, got {self.invariant_micro_batches}",
        )
        self._check_rank_invariant()
        require(self.poly_power > 0, f"--poly_power must be above 0, got {self.poly_power}")
        require(
            -37 <= self.log_epsilon <= 0,
            f"--log_epsilon must be -37 to 0, got {self.log_epsilon}; smaller powers of ten are 0 in float32",
        )
        require(
            self.start_warmup_step <= 0,
            f"--start_warmup_step must be at most 0, got {self.start_warmup_step}: earlier updates would have negative "
            "learning rates",
        )

    def _check_rank_invariant(self) -> None:
        if not self.rank_invariant:
            return
        require(
            self.lr_scaling == "none",
            "--rank_invariant needs --lr_scaling=none: linear multiplies the learning rate by the number of ranks",
        )
        require(
            not self.allreduce_fp16,
            "--rank_invariant cannot be combined with --allreduce_fp16: sums of float16 numbers depend on their order",
        )
