"""Which requests are kept on the device, by which rule, and for how long."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pd_device_client.contract.privacy import FREE, KeptBy, Privacy
from pd_device_client.privacy.judge import PrivacyJudge, Words
from pd_device_client.privacy.pattern_search import Found, PatternSearch
from pd_device_client.privacy.rules import LocalOnlyRules

# Two to the power of the text's length.
CATASTROPHE = "(a+)+$"


@contextmanager
def _judging(rules: LocalOnlyRules, within_s: float = 20.0) -> Iterator[PrivacyJudge]:
    judge = PrivacyJudge(rules, PatternSearch(rules.patterns, within_s=within_s))
    try:
        yield judge
    finally:
        judge.close()


def _said(text: str, num_tokens: int = 3) -> Words:
    return Words([text], [f"<s>{text}"], num_tokens)


async def test_without_rules_nothing_is_kept_but_what_says_so() -> None:
    judge = PrivacyJudge()
    assert judge.has_nothing_to_test
    assert await judge.judge(_said("a patient")) == FREE
    assert judge.has_nothing_to_test
    asked = Words(["a patient"], [], 3, local_only=True)
    assert await judge.judge(asked) == Privacy(KeptBy.REQUEST)
    assert not judge.has_nothing_to_test
    assert await judge.judge(_said("a patient asks")) == Privacy(KeptBy.CONVERSATION)
    assert await judge.judge(_said("no patient")) == FREE


async def test_labels_and_lengths() -> None:
    with _judging(LocalOnlyRules(local_only_labels=("health",), local_only_above=10)) as judge:
        assert await judge.judge(_said("x", 10)) == FREE
        assert await judge.judge(_said("y", 11)) == Privacy(KeptBy.RULE, "more than 10 tokens")
        labelled = Words(["z"], [], 1, label="health", conversation="c")
        assert await judge.judge(labelled) == Privacy(KeptBy.RULE, "label health")
        later = Words(["else"], [], 1, conversation="c")
        assert await judge.judge(later) == Privacy(KeptBy.CONVERSATION, "label health")


async def test_a_pattern_keeps_what_is_said_or_read_and_all_that_follows() -> None:
    rules = LocalOnlyRules(local_only_patterns=("one=uno", r"id=\bP[0-9]{6}\b"))
    with _judging(rules) as judge:
        assert await judge.judge(_said("P12345 is short")) == FREE
        kept = Privacy(KeptBy.RULE, "id")
        assert await judge.judge(_said("on P123456: why?")) == kept
        later = await judge.judge(_said("on P123456: why? Because. And now?"))
        assert later == Privacy(KeptBy.CONVERSATION, "id")
        assert await judge.judge(Words(["a tool"], ["<tool>P123456"], 3)) == kept
        assert await judge.judge(_said("uno")) == Privacy(KeptBy.RULE, "one")


async def test_a_pattern_that_takes_for_ever_keeps_the_request_and_stops_nothing() -> None:
    rules = LocalOnlyRules(local_only_patterns=(f"bad={CATASTROPHE}", "good=word"))
    with _judging(rules, within_s=0.5) as judge:
        hostile = asyncio.ensure_future(judge.judge(_said("a" * 60 + "!")))
        turns = 0
        while not hostile.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 5, "others run meanwhile"
        judged = await hostile
        assert (judged.by, judged.rule) == (KeptBy.RULE, "bad")
        assert "took more than 0.5 s" in judged.words
    with _judging(rules) as judge:  # with time enough for the child's start on a busy machine
        assert await judge.judge(_said("some")) == FREE
        assert await judge.judge(_said("a word")) == Privacy(KeptBy.RULE, "good")


@pytest.mark.slow
async def test_after_a_killed_search_the_next_one_is_made_as_usual() -> None:
    search = PatternSearch({"bad": CATASTROPHE, "good": "word"}, within_s=1.5)
    try:
        found = await search.first(["a" * 60 + "!"])
        assert found is not None
        assert found.problem
        assert await search.first(["a word"]) == Found("good")
        assert await search.first(["nothing", "\ud800"]) is None
    finally:
        search.close()


async def test_a_caller_that_goes_does_not_disturb_the_next() -> None:
    search = PatternSearch({"good": "word"}, within_s=20.0)
    try:
        first = asyncio.ensure_future(search.first(["a word"]))
        await asyncio.sleep(0)
        first.cancel()
        assert await search.first(["a word"]) == Found("good")
    finally:
        search.close()


async def test_where_no_process_can_be_started_all_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = PatternSearch({"good": "word"})
    monkeypatch.setattr(search, "_begun", _broken)
    found = await search.first(["anything"])
    assert found == Found("good", "its process ended")


def _broken() -> object:
    raise ConnectionError("its process ended")
