"""Optimisers against slow references, schedules against their formulas, gradient facts."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from pd_core.errors import ConfigError
from pd_training.optimise.conda import Conda
from pd_training.optimise.gradient import clip_gradient
from pd_training.optimise.optimisers import load_optimiser_state, make_optimiser, optimiser_state
from pd_training.recipe.schedules import RateSchedule, cosine_factor, uba_factor
from pd_training.recipe.settings import OptimiserSettings, RunSettings

Matrix = npt.NDArray[np.float64]


def gradients(shape: tuple[int, ...], steps: int) -> list[Matrix]:
    rng = np.random.default_rng(4)
    drift = rng.normal(size=shape)
    return [drift + rng.normal(size=shape) for _ in range(steps)]


def slow_conda(
    weight: Matrix, grads: list[Matrix], lr: float, scale: float, period: int, decay: float
) -> Matrix:
    """The rule, entry by entry in the rotated basis, with numpy's decomposition."""
    b1, b2, eps = 0.9, 0.99, 1e-8
    w, m, s2 = weight.copy(), np.zeros_like(weight), np.zeros_like(weight)
    rows, columns = weight.shape
    q = np.eye(1)
    for t, g in enumerate(grads, 1):
        m = b1 * m + (1 - b1) * g
        if (t - 1) % period == 0:
            u, _, vh = np.linalg.svd(m, full_matrices=True)
            q = vh.T if rows >= columns else u
        g_rotated = g @ q if rows >= columns else q.T @ g
        m_rotated = m @ q if rows >= columns else q.T @ m
        normalised = np.zeros_like(w)
        for i in range(rows):
            for j in range(columns):
                s2[i, j] = b2 * s2[i, j] + (1 - b2) * g_rotated[i, j] ** 2
                normalised[i, j] = m_rotated[i, j] / (math.sqrt(s2[i, j]) + eps)
        back = normalised @ q.T if rows >= columns else q @ normalised
        w = w - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * scale * back
        w = w - lr * decay * w
    return w


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)], ids=["tall", "wide", "square"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_conda_equals_the_slow_reference(shape: tuple[int, int], decay: float) -> None:
    start, grads = gradients(shape, 1)[0], gradients(shape, 9)
    weight = nn.Parameter(torch.tensor(start))
    conda = Conda(
        [{"params": [weight], "project": True}], lr=0.02, weight_decay=decay, scale=0.25, period=4
    )
    for g in grads:
        weight.grad = torch.tensor(g)
        conda.step()
    want = slow_conda(start, grads, 0.02, 0.25, 4, decay)
    np.testing.assert_allclose(weight.detach().numpy(), want, atol=1e-11)
    other = slow_conda(start, grads, 0.02, 0.25, 3, decay)
    assert np.abs(other - want).max() > 1e-5, "the period must matter, or this test is blind"


def test_conda_without_projection_is_adam() -> None:
    start, grads = gradients((6,), 1)[0], gradients((6,), 9)
    ours, theirs = (nn.Parameter(torch.tensor(start)) for _ in range(2))
    conda = Conda([{"params": [ours]}], lr=0.02, betas=(0.9, 0.99), eps=1e-12)
    adam = torch.optim.Adam([theirs], lr=0.02, betas=(0.9, 0.99), eps=1e-12)
    for g in grads:
        for parameter, optimiser in ((ours, conda), (theirs, adam)):
            parameter.grad = torch.tensor(g)
            optimiser.step()
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


class Tiny(nn.Module):
    """One parameter of each kind that the optimisers tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 5, bias=False)
        self.mlp = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(3, bias=False)


def run_steps(model: Tiny, optimiser: torch.optim.Optimizer, first: int, end: int) -> None:
    for step in range(first, end):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize("name", ["adamw", "conda"])
def test_state_by_name_brings_an_optimiser_back(name: str) -> None:
    settings = OptimiserSettings(name=name, lr=0.01, weight_decay=0.1, conda_period=3)
    torch.manual_seed(0)
    model = Tiny()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = make_optimiser(model, settings, 20)
    run_steps(model, optimiser, 0, 5)
    half = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value.clone() for key, value in optimiser_state(model, optimiser).items()}
    run_steps(model, optimiser, 5, 9)

    again = Tiny()
    again.load_state_dict(half)
    resumed = make_optimiser(again, settings, 20)
    load_optimiser_state(again, resumed, state)
    run_steps(again, resumed, 5, 9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert not torch.equal(value, start[key])
    with pytest.raises(ConfigError, match="does not fit the model"):
        load_optimiser_state(again, resumed, {"exp_avg.mlp.weight": torch.zeros(2, 2)})


def test_conda_projects_attention_and_mlp_matrices_alone() -> None:
    model = Tiny()
    optimiser = make_optimiser(model, OptimiserSettings(name="conda"), 200)
    projected = [g for g in optimiser.param_groups if g["project"]]
    assert [p is model.mlp.weight for g in projected for p in g["params"]] == [True]
    assert {g["period"] for g in optimiser.param_groups} == {10}
    assert sum(len(g["params"]) for g in optimiser.param_groups) == 4


def test_uba_with_phi_2_is_the_cosine_to_the_bit() -> None:
    shares = [i / 997 for i in range(998)]
    assert [uba_factor(x, 2.0) for x in shares] == [cosine_factor(x) for x in shares]
    for x in shares[1:-1]:
        assert uba_factor(x, 0.5) > cosine_factor(x) > uba_factor(x, 5.0)
    assert uba_factor(0.0, 0.7) == uba_factor(1.0, 0.0) == 1.0
    # theta = pi / 2: 2 / (2 phi + 2 - phi) = 2 / (phi + 2)
    assert uba_factor(0.5, 6.0) == pytest.approx(0.25)


def test_rates_rise_then_fall_to_the_floor() -> None:
    rates = RateSchedule("cosine", 1.0, 0.1, 1000, 100)
    assert rates.rate(0) == pytest.approx(0.01)
    assert rates.rate(99) == rates.rate(100) == 1.0
    assert rates.rate(550) == pytest.approx(0.55)
    assert rates.rate(999) == pytest.approx(0.1, abs=1e-5)
    assert RateSchedule("constant", 1.0, 0.1, 1000, 100).rate(999) == 1.0
    assert RateSchedule("uba", 1.0, 0.1, 1000, 100, phi=2).rate(321) == rates.rate(321)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"warmup": 1.5}, "between 0 and 1"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"phi": -1.0}, "phi is -1"),
        ({"clip": -1.0}, "clip is -1"),
        ({"clip": math.nan}, "clip is nan"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": 2**63}, "2\\^63 or more"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunSettings(**({"steps": 10} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sgd"},
        {"lr": 0.0},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -1.0},
        {"weight_decay": math.nan},
        {"conda_scale": math.inf},
        {"conda_period": -1},
        {"eps": 0.0},
    ],
)
def test_optimiser_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        OptimiserSettings(**change)  # type: ignore[arg-type]


def test_gradient_facts_and_clipping() -> None:
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 0.0]])
    model.bias.grad = torch.tensor([-4.0])
    facts = clip_gradient(model, 2.0)
    assert facts.l2 == pytest.approx(5.0)
    assert facts.l1_ratio == pytest.approx(7 / (math.sqrt(3) * 5))
    assert clip_gradient(model, 0.0).l2 == pytest.approx(2.0)
    assert clip_gradient(model, 9.0).l2 == pytest.approx(2.0)
    model.weight.grad.fill_(math.nan)
    assert math.isnan(clip_gradient(model, 1.0).l2)
    assert model.bias.grad.item() == pytest.approx(-1.6)
