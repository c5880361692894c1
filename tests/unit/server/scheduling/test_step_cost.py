"""The cost of a step is found from a few, noisy ones, and says how much prefill is harmless."""

import random

import pytest

from pd_server.scheduling.step_cost import StepCost, StepSample

BASE_S, SEQUENCE_S, TOKEN_S, KEY_S = 2e-3, 4e-4, 1e-4, 1e-8


def _samples(noise: float) -> list[StepSample]:
    chance = random.Random(1)
    cost = StepCost(BASE_S, SEQUENCE_S, TOKEN_S, KEY_S)
    shapes = [(1, 64, 64 * 64), (1, 64, 64 * 2048), (1, 1, 1), (1, 1, 2048), (8, 8, 8 * 2048)] * 3
    return [
        StepSample(*shape, cost.seconds(*shape) * chance.uniform(1, 1 + noise)) for shape in shapes
    ]


def test_exact_samples_give_the_exact_cost() -> None:
    cost = StepCost.fitted(_samples(0.0))
    found = (cost.base_s, cost.sequence_s, cost.token_s, cost.key_s)
    assert found == pytest.approx((BASE_S, SEQUENCE_S, TOKEN_S, KEY_S))


def test_no_cost_is_negative_however_odd_the_samples() -> None:
    falling = [
        StepSample(1, 1, 1, 1e-2),
        StepSample(8, 8, 8, 9e-3),
        StepSample(1, 64, 4096, 1e-3),
        StepSample(1, 64, 131072, 5e-3),
    ]
    cost = StepCost.fitted(falling)
    assert min(cost.base_s, cost.sequence_s, cost.token_s, cost.key_s) >= 0
    assert cost.seconds(1, 64, 4096) > 0


def test_spare_tokens_keep_the_step_within_its_bound() -> None:
    cost = StepCost.fitted(_samples(0.1))
    for decodes in (1, 4, 16):
        for position in (0, 500, 4000):
            spare = cost.spare_tokens(decodes, position)
            alone = cost.seconds(decodes, decodes, decodes * position)
            tokens = decodes + spare
            beside = cost.seconds(decodes + 1, tokens, tokens * position)
            assert beside <= 1.61 * alone
    assert cost.spare_tokens(4, 4000) < cost.spare_tokens(4, 0)
    assert cost.spare_tokens(16, 0) > cost.spare_tokens(1, 0), "a longer step has more to spare"


def test_a_longer_gap_leaves_room_for_more_prefill() -> None:
    cost = StepCost.fitted(_samples(0.1))
    alone = cost.seconds(4, 4, 4 * 500)
    for gap in (0.0, 1.2 * alone):
        assert cost.spare_tokens(4, 500, gap) == cost.spare_tokens(4, 500)
    for stretch in (2.0, 5.0):
        tokens = 4 + cost.spare_tokens(4, 500, stretch * alone)
        beside = cost.seconds(5, tokens, tokens * 500)
        assert 0.95 * stretch * alone <= beside <= 1.02 * stretch * alone


def test_a_decode_s_own_cost_is_not_taken_for_a_token_s() -> None:
    """A decode walks a cache of its own: dearer than a token more in somebody's chunk."""
    cost = StepCost.fitted(_samples(0.0))
    spare = cost.spare_tokens(16, 0)
    # 56 to the last digit: on which side of it a least-squares fit lies is up to the machine.
    assert spare in (55, 56)
    assert round((0.6 * (2e-3 + 16 * 5e-4) - 4e-4) / 1e-4, 6) == 56


def test_no_spare_is_negative() -> None:
    assert StepCost(0.0, 1.0, 1e-3, 0.0).spare_tokens(1, 0) == 0


def test_free_tokens_are_not_infinitely_many() -> None:
    assert StepCost(1e-3, 0.0, 0.0, 0.0).spare_tokens(1, 0) == 1 << 20


def test_a_step_takes_a_tenth_of_a_second_within_bounds() -> None:
    assert StepCost(0.02, 0.0, 1e-4, 1e-7).step_tokens(8) == 384  # 0.02 + 384 * 2.024e-4 = 0.0977
    assert StepCost(0.5, 0.0, 1e-2, 0.0).step_tokens(8) == 64, "too slow for any"
    assert StepCost(0.5, 0.0, 1e-2, 0.0).step_tokens(100) == 256, (
        "too few to go on beside 100 decodes"
    )
    assert StepCost(1e-4, 0.0, 1e-7, 0.0).step_tokens(8) == 2048
