"""When guessing goes on, when it stops, and that it comes back."""

import pytest

from pd_core.errors import ConfigError
from pd_core.speculation.speculation import Speculation


def run(speculation: Speculation, passes: int, accepted: int, drafted_s: float) -> int:
    """Run passes of 10 ms, or drafted_s with guesses; return how many had guesses."""
    with_guesses = 0
    for _ in range(passes):
        n = speculation.draft_tokens()
        with_guesses += n > 0
        speculation.passed(n, min(n, accepted), drafted_s if n else 0.010)
    return with_guesses


def test_guesses_go_on_where_they_pay() -> None:
    speculation = Speculation(3)
    assert run(speculation, 200, accepted=1, drafted_s=0.011) == 199, "one pass to compare with"
    assert speculation.num_drafted == 3 * 199
    assert speculation.num_accepted == 199


@pytest.mark.parametrize(("accepted", "drafted_s"), [(0, 0.0101), (1, 0.025)])
def test_guesses_stop_where_they_do_not_pay(accepted: int, drafted_s: float) -> None:
    speculation = Speculation(3)
    assert run(speculation, 1000, accepted, drafted_s) < 50
    assert run(speculation, 1000, accepted=3, drafted_s=0.011) > 700, "it never tries again"


def test_none_are_made_when_it_is_off() -> None:
    speculation = Speculation(0)
    assert not speculation.may_draft
    assert run(speculation, 100, accepted=3, drafted_s=0.001) == 0


@pytest.mark.parametrize("draft_tokens", [-1, 33])
def test_a_number_out_of_range_is_refused(draft_tokens: int) -> None:
    with pytest.raises(ConfigError, match="speculate"):
        Speculation(draft_tokens)
