"""LAMB for torch, which has none: MLPerf's form, in place, the way torch writes its own optimizers."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

EXEMPT = re.compile("LayerNorm|bias")


class Lamb(torch.optim.Optimizer):
    """Bias correction, epsilon outside the root, decay inside the trust ratio; LayerNorm and bias have neither."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, torch.nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        named = list(named_parameters)
        groups = [
            {"params": [value for name, value in named if bool(EXEMPT.search(name)) == exempt], "exempt": exempt}
            for exempt in (False, True)
        ]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update(parameter, self.state[parameter], group)

    def _update(self, parameter: torch.nn.Parameter, state: dict, group: dict) -> None:
        if not state:
            state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        beta_1, beta_2 = group["betas"]
        state["step"] += 1
        first, second = state["first"], state["second"]
        first.lerp_(parameter.grad, 1 - beta_1)
        second.mul_(beta_2).addcmul_(parameter.grad, parameter.grad, value=1 - beta_2)
        root = (second / (1 - beta_2 ** state["step"])).sqrt_().add_(group["eps"])
        update = first.div(root).div_(1 - beta_1 ** state["step"])
        ratio = 1.0
        if not group["exempt"]:
            update.add_(parameter, alpha=group["weight_decay"])
            weight_norm, update_norm = parameter.norm().item(), update.norm().item()
            if weight_norm > 0 and update_norm > 0:
                ratio = weight_norm / update_norm
        parameter.add_(update, alpha=-group["lr"] * ratio)
