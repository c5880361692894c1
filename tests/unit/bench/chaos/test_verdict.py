"""What became of an answer, for every way in which it can go wrong."""

import pytest

from pd_bench.chaos.verdict import Verdict, judge
from pd_core.errors import CloudUnavailable

WHOLE = [10, 11, 12, 13, 14, 15]
GONE = CloudUnavailable("gone")


@pytest.mark.parametrize(
    ("shown", "verdict"),
    [
        (WHOLE, Verdict.RIGHT),
        (WHOLE[:4], Verdict.LOST),
        ([], Verdict.LOST),
        ([10, 11, 13, 14, 15], Verdict.LOST),
        ([11, 12, 13, 14, 15], Verdict.LOST),
        ([10, 11, 11, 12, 13, 14, 15], Verdict.DOUBLED),
        ([10, 11, 12, 10, 11, 12], Verdict.DOUBLED),
        ([*WHOLE, 15], Verdict.DOUBLED),
        ([10, 11, 99, 13, 14, 15], Verdict.WRONG),
        ([10, 11, 12, 13, 14, 99], Verdict.WRONG),
    ],
)
def test_an_answer_that_ended_is_whole_or_not(shown: list[int], verdict: Verdict) -> None:
    assert judge(shown, WHOLE, None, well=True) is verdict


def test_an_error_is_one_only_where_no_side_was_well() -> None:
    assert judge(WHOLE[:2], WHOLE, GONE, well=False) is Verdict.FAILED
    assert judge(WHOLE[:2], WHOLE, GONE, well=True) is Verdict.UNANSWERED
    assert judge([10, 12], WHOLE, GONE, well=False) is Verdict.LOST


def test_what_does_not_end_or_is_left_is_told_apart() -> None:
    assert judge(WHOLE[:2], WHOLE, None, ended=False, well=True) is Verdict.UNANSWERED
    assert judge(WHOLE[:2], WHOLE, None, left=True, well=True) is Verdict.LEFT
    assert judge([10, 10], WHOLE, None, left=True, well=True) is Verdict.DOUBLED
