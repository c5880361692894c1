"""Guesses from the text itself, against a search of the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from pd_core.speculation.prompt_lookup import PromptLookup

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def slow_draft(tokens: list[int], most: int) -> list[int]:
    for length in (3, 2, 1):
        end = tokens[len(tokens) - length :] if len(tokens) >= length else None
        for at in range(len(tokens) - 1, length - 1, -1):
            if tokens[at - length : at] == end:
                longer = list(tokens)
                for index in range(at, at + most):
                    longer.append(longer[index])
                return longer[len(tokens) :]
    return []


@given(TOKENS, TOKENS, st.integers(0, 9))
def test_it_finds_what_a_search_finds(first: list[int], then: list[int], most: int) -> None:
    lookup = PromptLookup(first)
    lookup.extend(then)
    assert lookup.num_tokens == len(first) + len(then)
    assert lookup.draft(most) == slow_draft([*first, *then], most)


def test_the_longest_match_wins_and_of_these_the_last() -> None:
    lookup = PromptLookup([1, 2, 3, 70, 9, 2, 3, 80, 1, 2, 3, 71, 5, 3, 90, 1, 2, 3])
    assert lookup.draft(2) == [71, 5]


def test_a_loop_is_guessed_to_go_on() -> None:
    assert PromptLookup([7, 8, 9, 8, 9]).draft(5) == [8, 9, 8, 9, 8]
    assert PromptLookup([4, 4]).draft(3) == [4, 4, 4]
