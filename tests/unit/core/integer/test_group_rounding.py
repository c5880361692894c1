"""Rounding to 4 bits: the error is small, and steps are found again in what files hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pd_core.integer.group_rounding import MOST_STEP, group_scales, round_groups, split_scales
from pd_core.integer.weights import IntegerWeight, round_rows


def floats(weight: IntegerWeight) -> Tensor:
    return weight.integers().float() * weight.scales[:, None]


def by_largest(weight: Tensor) -> Tensor:
    """Round each group by its largest element, as the simplest way does."""
    groups = weight.view(len(weight), -1, 32)
    scales = groups.abs().amax(-1, keepdim=True) / 7.5
    back: Tensor = (groups / scales).round().clamp(-8, 7) * scales
    return back.flatten(1)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_steps_are_found_again_in_the_products(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 200))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    weight = torch.randn(rows, cols, generator=generator)
    weight *= 2.0 ** torch.randint(-40, 40, (rows, 1), generator=generator)
    weight[:, ::7] *= data.draw(st.sampled_from([0.0, 1.0, 50.0]))
    if data.draw(st.booleans()):
        weight[0] = 0.0
    rounded = round_groups(weight)
    assert rounded.steps is not None
    assert rounded.codes.shape == weight.shape
    assert 1 <= int(rounded.steps.min()) <= int(rounded.steps.max()) <= MOST_STEP
    found = split_scales(group_scales(rounded))
    assert found is not None
    assert torch.equal(found[0], rounded.steps)
    assert torch.equal(found[1], rounded.scales)


@pytest.mark.slow
@given(data=st.data())
def test_the_least_steps_are_found_as_by_trying_all(data: st.DataObject) -> None:
    steps = st.lists(st.integers(0, 80), min_size=7, max_size=7)
    rows = torch.tensor(data.draw(st.lists(steps, min_size=1, max_size=4)))
    scale = data.draw(st.sampled_from([1.0, 0.3, 3e-7]))
    scales = (rows * torch.tensor(scale)).float()
    expected: list[tuple[float, list[float]] | None] = []
    for row in scales:
        tops = [row.max() / top for top in range(1, MOST_STEP + 1)]
        whole = [(torch.round(row / s), s) for s in tops if s > 0]
        fit = [(w, s) for w, s in whole if torch.equal(w * s, row) and w.min() >= 1]
        none = None if row.max() > 0 else (0.0, [1.0] * 7)
        expected.append((float(fit[0][1]), fit[0][0].tolist()) if fit else none)
    found = split_scales(scales)
    if None in expected:
        assert found is None
    else:
        assert found is not None
        assert list(zip(found[1].tolist(), found[0].tolist(), strict=True)) == expected


def test_scales_that_are_no_whole_multiples_are_not_split() -> None:
    assert split_scales(torch.tensor([[1.0, 0.7310585]])) is None
    assert split_scales(torch.tensor([[1.0, 1 / 64]])) is None


def test_the_search_errs_less_than_the_largest_element_s_scale() -> None:
    weight = torch.randn(64, 320, generator=torch.Generator().manual_seed(0))
    weight[:, 5] *= 3
    found = (floats(round_groups(weight, torch.ones(320))) - weight).square().sum()
    assert float(found) < 0.9 * float((by_largest(weight) - weight).square().sum())


def test_important_columns_err_less() -> None:
    weight = torch.randn(64, 320, generator=torch.Generator().manual_seed(0))
    importance = torch.full((320,), 1e-3)
    importance[::32] = 1.0
    errors = [
        (floats(round_groups(weight, counts)) - weight)[:, ::32].square().sum()
        for counts in (importance, torch.ones(320))
    ]
    assert float(errors[0]) < 0.2 * float(errors[1])


@pytest.mark.parametrize("value", [0.0, 1e-38, 3e38, -3e38])
def test_extreme_weights_stay_finite(value: float) -> None:
    weight = torch.full((3, 64), value)
    for rounded in (round_groups(weight), round_rows(weight)):
        back = floats(rounded)
        assert torch.isfinite(back).all()
        assert torch.allclose(back, weight, rtol=0.01, atol=1e-30)
