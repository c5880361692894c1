"""The cost of a step is found from a few, noisy ones, and says how much prefill is harmless."""

import random

import pytest

from pd_server.step_cost import StepCost, StepSample


def _samples(base_s: float, token_s: float, key_s: float, noise: float) -> list[StepSample]:
    chance = random.Random(1)
    shapes = [(64, 64 * 64), (64, 64 * 2048), (1, 1), (1, 2048)] * 3
    return [
        StepSample(t, k, (base_s + token_s * t + key_s * k) * chance.uniform(1, 1 + noise))
        for t, k in shapes
    ]


def test_exact_samples_give_the_exact_cost() -> None:
    cost = StepCost.fitted(_samples(2e-3, 1e-4, 1e-8, 0.0))
    assert (cost.base_s, cost.token_s, cost.key_s) == pytest.approx((2e-3, 1e-4, 1e-8))


def test_no_cost_is_negative_however_odd_the_samples() -> None:
    falling = [StepSample(1, 1, 1e-2), StepSample(64, 4096, 1e-3), StepSample(64, 131072, 5e-3)]
    cost = StepCost.fitted(falling)
    assert min(cost.base_s, cost.token_s, cost.key_s) >= 0
    assert cost.seconds(64, 4096) > 0


def test_spare_tokens_keep_the_step_within_its_bound() -> None:
    cost = StepCost.fitted(_samples(2e-3, 1e-4, 1e-8, 0.1))
    for decodes in (1, 4, 16):
        for position in (0, 500, 4000):
            spare = cost.spare_tokens(decodes, position)
            alone = cost.seconds(decodes, decodes * position)
            beside = cost.seconds(decodes + spare, (decodes + spare) * position)
            assert beside <= 1.61 * alone
    assert cost.spare_tokens(4, 4000) < cost.spare_tokens(4, 0)
    assert cost.spare_tokens(16, 0) > cost.spare_tokens(1, 0), "a longer step has more to spare"


def test_free_tokens_are_not_infinitely_many() -> None:
    assert StepCost(1e-3, 0.0, 0.0).spare_tokens(1, 0) == 1 << 20


def test_a_step_takes_a_tenth_of_a_second_within_bounds() -> None:
    assert StepCost(0.02, 1e-4, 1e-7).step_tokens(8) == 384  # 0.02 + 384 * 2.024e-4 = 0.0977
    assert StepCost(0.5, 1e-2, 0.0).step_tokens(8) == 64, "too slow for any"
    assert StepCost(0.5, 1e-2, 0.0).step_tokens(100) == 256, "too few to go on beside 100 decodes"
    assert StepCost(1e-4, 1e-7, 0.0).step_tokens(8) == 2048
