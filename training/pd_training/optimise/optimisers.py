"""AdamW and Conda over a model's named parameters, and their state by name."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pd_core.errors import ConfigError
from pd_training.optimise.conda import Conda
from pd_training.recipe.settings import OptimiserSettings

__all__ = ["load_optimiser_state", "make_optimiser", "optimiser_state"]

_IN_ATTENTION_OR_MLP = re.compile(r"attn|mlp")


def make_optimiser(model: nn.Module, settings: OptimiserSettings, steps: int) -> Optimizer:
    """Return the optimiser for a run of `steps` steps.

    Only matrices get weight decay; norms and biases do not.
    """
    decayed: list[nn.Parameter] = []
    projected: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2:
            plain.append(parameter)
        elif settings.name == "conda" and _IN_ATTENTION_OR_MLP.search(name):
            projected.append(parameter)
        else:
            decayed.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
    groups.append({"params": projected, "project": True})
    return Conda(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        scale=settings.conda_scale,
        weight_decay=settings.weight_decay,
        period=settings.conda_period or max(1, round(0.05 * steps)),
    )


def optimiser_state(model: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    """Return every state tensor as "<state>.<parameter name>"."""
    return {
        f"{key}.{name}": value.detach()
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state[parameter].items()
    }


def load_optimiser_state(
    model: nn.Module, optimiser: Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state that `optimiser_state` returned.

    Raises:
        ConfigError: a tensor belongs to no parameter, or its shape differs from the parameter's.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        key, _, owner = name.partition(".")
        parameter = parameters.get(owner)
        moment = key in ("exp_avg", "exp_avg_sq")
        if parameter is None or (moment and tensor.shape != parameter.shape):
            raise ConfigError(
                f"the checkpoint's optimiser state {name} does not fit the model; it belongs to "
                "another run"
            )
        # Step counters stay on the CPU, where the optimisers keep them.
        place = torch.device("cpu") if key == "step" else parameter.device
        optimiser.state[parameter][key] = tensor.to(place)
