"""Which numbers of threads are tried, and that trying them changes no bit."""

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.identity.numerics import INTEGER, Numerics, unchecked
from pd_core.models import Segment
from pd_core.models.thread_trial import (
    PassTimes,
    fewest_near_best,
    thread_counts,
    try_threads,
)
from pd_core.store.model_names import RANDOM_TINY

CHECKED = Numerics(True, 4, 0, "avx512", "00")
TILES = Numerics(True, 1, 16, "avx512", "00")


@pytest.mark.parametrize(
    ("numerics", "most", "counts"),
    [
        (INTEGER, 1, [1]),
        (INTEGER, 6, [1, 2, 4, 6]),
        (INTEGER, 8, [1, 2, 4, 8]),
        (unchecked("avx2"), 3, [1, 2, 3]),
        (CHECKED, 8, [1, 2, 6]),  # only what the probe compared
        (CHECKED, 4, [1, 2]),
        (TILES, 8, [6]),
    ],
)
def test_only_numbers_with_the_same_bits_are_tried(
    numerics: Numerics, most: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert thread_counts(numerics, most) == counts


def test_the_fewest_of_those_that_are_about_as_fast() -> None:
    times = [PassTimes(1, 2.0, 1.0), PassTimes(2, 1.04, 0.98), PassTimes(4, 1.0, 3.0)]
    assert fewest_near_best(times, lambda t: t.token_s).threads == 2
    assert fewest_near_best(times, lambda t: t.step_s).threads == 1


@pytest.mark.parametrize("numerics", ["float32", "integer"])
def test_a_trial_times_every_number_and_changes_no_bit(numerics: str) -> None:
    model = load_model(RANDOM_TINY, numerics=numerics).model
    tokens = torch.arange(20)

    def logits() -> torch.Tensor:
        return model.logits(model.forward(tokens, [Segment(model.make_cache(20), 0, 20)]))

    before, present = logits(), torch.get_num_threads()
    try:
        times = try_threads(model, [1, 2], sequences=3)
        assert [t.threads for t in times] == [1, 2]
        assert all(0 < t.token_s < 60 and 0 < t.step_s < 60 for t in times)
        assert torch.equal(logits(), before)
    finally:
        torch.set_num_threads(present)
