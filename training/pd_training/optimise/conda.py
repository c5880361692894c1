"""Conda, column-normalised Adam (arXiv 2509.24218), written from the rule in the paper.

Adam divides each entry of the momentum by the root of its second moment. Conda does so in a rotated
basis: the momentum's singular vectors on the matrix's shorter side, recomputed every `period`
steps.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from pd_core.errors import ConfigError

__all__ = ["Conda"]


class Conda(Optimizer):
    """Conda for the groups with `project` true, plain Adam for the rest.

    Args:
        groups: parameter groups; each may have its own lr, weight_decay and `project`.
        lr: learning rate of all groups.
        betas: decay of first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, applied after the step.
        scale: factor of the projected matrices' updates.
        period: steps between recomputations of the basis.

    Raises:
        ConfigError: period is below 1, or a projected parameter is not a matrix.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        scale: float = 0.25,
        period: int = 2000,
    ) -> None:
        if period < 1:
            raise ConfigError(f"Conda's projection period is {period}; it must be 1 or more")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults | {"scale": scale, "period": period, "project": False})
        for group in self.param_groups:
            if group["project"] and any(p.ndim != 2 for p in group["params"]):
                raise ConfigError("Conda projects matrices only; a parameter is none")

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = int(state["step"].item())
        momentum, second = state["exp_avg"], state["exp_avg_sq"]
        momentum.mul_(beta1).add_(gradient, alpha=1 - beta1)
        if group["project"]:
            if (step - 1) % group["period"] == 0:
                state["basis"] = _short_side_basis(momentum)
            basis, tall = state["basis"], _is_tall(parameter)
            rotated = gradient @ basis if tall else basis.T @ gradient
            # As in the paper, the second moment is not rotated when the basis changes.
            second.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
            turned = momentum @ basis if tall else basis.T @ momentum
            turned = turned / (second.sqrt() + group["eps"])
            update = group["scale"] * (turned @ basis.T if tall else basis @ turned)
        else:
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            update = momentum / (second.sqrt() + group["eps"])
        correction = (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        parameter.sub_(update, alpha=group["lr"] * correction)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] >= matrix.shape[1]


def _short_side_basis(momentum: Tensor) -> Tensor:
    """Return all singular vectors of the shorter side as columns: (n, n), n = min(shape)."""
    # At least float32, because no smaller type has the decomposition.
    wide = momentum if momentum.dtype == torch.float64 else momentum.float()
    left, _, right = torch.linalg.svd(wide, full_matrices=False)
    basis: Tensor = right.mT if _is_tall(momentum) else left
    return basis.to(momentum.dtype).contiguous()
