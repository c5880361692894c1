"""What became of one answer, beside the answer that comes without faults."""

from collections.abc import Sequence
from enum import StrEnum

from pd_core.errors import PdError

__all__ = ["Verdict", "judge"]


class Verdict(StrEnum):
    """What became of an answer."""

    RIGHT = "right"  # complete, and the same
    FAILED = "failed"  # a typed error after a right beginning, where no side was well
    LEFT = "left"  # its reader went away after a right beginning
    LOST = "lost"  # tokens are missing
    DOUBLED = "doubled"  # tokens come twice
    WRONG = "wrong"  # other tokens
    UNANSWERED = "unanswered"  # it did not end, or failed although a side was well


def judge(
    token_ids: Sequence[int],
    expected: Sequence[int],
    error: PdError | None,
    *,
    ended: bool = True,
    left: bool = False,
    well: bool,
) -> Verdict:
    """Compare what a reader was shown with the answer without faults.

    Args:
        token_ids: what was shown.
        expected: the whole answer.
        error: why it is incomplete, or None.
        ended: it came to an end of its own.
        left: its reader went away before the end.
        well: one side was well all the time, and could have made all of it.
    """
    shown = list(token_ids)
    same = next(
        (at for at, (a, b) in enumerate(zip(shown, expected, strict=False)) if a != b), len(shown)
    )
    if same < len(shown):
        return _changed(shown[min(same, len(expected)) :], expected, min(same, len(expected)))
    if len(shown) > len(expected):
        return Verdict.DOUBLED
    if not ended:
        return Verdict.UNANSWERED
    if left:
        return Verdict.LEFT
    if error is not None:
        return Verdict.UNANSWERED if well else Verdict.FAILED
    return Verdict.RIGHT if len(shown) == len(expected) else Verdict.LOST


def _changed(rest: Sequence[int], expected: Sequence[int], at: int) -> Verdict:
    """Return what happened to an answer that goes on with `rest` at a position, and should not."""
    for start in range(len(expected)):
        if list(rest) == list(expected[start : start + len(rest)]):
            return Verdict.DOUBLED if start < at else Verdict.LOST
    return Verdict.WRONG
