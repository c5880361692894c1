"""A matcher's masks against the library asked about one token at a time, from any prefix."""

import random
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.constraint import Constraint, json_object_constraint
from pd_core.errors import InvalidConstraint
from pd_core.grammar.grammars import Grammars
from pd_core.grammar.matcher import Matcher
from tests.forms import FORMS, SCHEMAS, fits

EOS = 1
TOKENIZER = random_tiny_tokenizer()
WIDTH = TOKENIZER.vocab_size
ALL = {**FORMS, "object": json_object_constraint()}


@cache
def grammars() -> Grammars:
    return Grammars(TOKENIZER, WIDTH, [EOS])


def allowed(matcher: Matcher, token_ids: list[int]) -> list[int]:
    bits = np.unpackbits(matcher.mask(token_ids).view(np.uint8), bitorder="little")
    assert not bits[WIDTH:].any()
    return [int(i) for i in np.flatnonzero(bits)]


def any_answer(constraint: Constraint, chance: random.Random, most: int = 80) -> list[int]:
    """An answer of random allowed tokens, up to its end of sequence or `most` tokens."""
    matcher, made = grammars().matcher(constraint), list[int]()
    while len(made) < most:
        made.append(chance.choice(allowed(matcher, made)))
        if made[-1] == EOS:
            break
    return made


@pytest.mark.parametrize("name", ALL)
def test_a_mask_allows_what_the_library_takes_one_by_one(name: str) -> None:
    chance = random.Random(name)
    constraint = ALL[name]
    answers = [any_answer(constraint, chance, 24) for _ in range(3)]
    prefixes = [made[:length] for made in answers for length in range(0, len(made), 3)]
    many = 0
    for prefix in prefixes:
        found = allowed(grammars().matcher(constraint), prefix)
        matcher = grammars().matcher(constraint)
        taken = [t for t in range(WIDTH) if matcher.num_fitting(prefix, [t]) == 1]
        many += len(taken) > 1
        if found != taken:  # where the next text is given, only its usual token
            assert len(found) == 1
            assert found[0] in taken
    assert many


@pytest.mark.slow
@given(st.sampled_from(sorted(ALL)), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_state_is_that_of_the_prefix_whatever_was_asked_before(
    name: str, chance: random.Random
) -> None:
    answers = [any_answer(ALL[name], chance, 40) for _ in range(2)]
    used = grammars().matcher(ALL[name])
    for _ in range(12):
        made = [token for token in chance.choice(answers) if token != EOS]
        prefix = made[: chance.randint(0, len(made))]
        if chance.random() < 0.4:
            more = [*made[len(prefix) :][:3], chance.randrange(WIDTH)]
            fresh = grammars().matcher(ALL[name])
            assert used.num_fitting(prefix, more) == fresh.num_fitting(prefix, more)
        assert np.array_equal(used.mask(prefix), grammars().matcher(ALL[name]).mask(prefix))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_complete_answer_is_of_its_schema(name: str) -> None:
    ended = 0
    for seed in range(30):
        made = any_answer(FORMS[name], random.Random(seed), 400)
        if made[-1] == EOS:
            ended += 1
            assert fits(SCHEMAS[name], TOKENIZER.decode(made)), TOKENIZER.decode(made)
    assert ended >= 25


def test_the_end_may_come_exactly_where_the_form_is_complete() -> None:
    matcher = grammars().matcher(FORMS["regex"])
    ids = TOKENIZER.encode("123-no")
    for length in range(len(ids)):
        assert EOS not in allowed(matcher, ids[:length])
        assert matcher.num_fitting(ids[:length], [EOS]) == 0
    assert allowed(matcher, ids) == [EOS]
    assert matcher.num_fitting([], [*ids, EOS]) == len(ids) + 1
    longer = TOKENIZER.encode("123-é")
    assert EOS in allowed(matcher, longer)
    assert len(allowed(matcher, longer)) > 1


def test_nothing_but_an_end_follows_an_end() -> None:
    matcher = grammars().matcher(FORMS["regex"])
    ids = TOKENIZER.encode("123-no")
    assert allowed(matcher, [*ids, EOS]) == allowed(matcher, [*ids, EOS, 7]) == [EOS]
    assert matcher.num_fitting([*ids, EOS], [EOS]) == 0
    assert matcher.num_fitting(ids, [EOS, 7]) == 1


def test_a_prefix_of_another_form_is_refused_and_leaves_the_matcher_usable() -> None:
    matcher = grammars().matcher(FORMS["person"])
    before = matcher.mask([])
    with pytest.raises(InvalidConstraint, match="token 0 of the answer does not fit"):
        matcher.mask(TOKENIZER.encode("no object"))
    assert np.array_equal(matcher.mask([]), before)
