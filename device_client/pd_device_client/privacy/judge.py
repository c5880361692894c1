"""Judges whether a request's words may leave this device."""

from dataclasses import dataclass

from pd_device_client.contract.privacy import FREE, KeptBy, Privacy
from pd_device_client.privacy.pattern_search import PatternSearch
from pd_device_client.privacy.private_words import PrivateWords
from pd_device_client.privacy.rules import LocalOnlyRules

__all__ = ["PrivacyJudge", "Words"]


@dataclass(frozen=True, slots=True)
class Words:
    """What is known of a request.

    Attributes:
        said: what it says, a text for each prompt; a later turn of a chat begins with it.
        read: what the model would read: patterns are sought in both.
        num_tokens: of the longest prompt.
        local_only: the request itself says that it stays here.
        label: that the request carries, or None.
        conversation: an id of the conversation, or None.
    """

    said: list[str]
    read: list[str]
    num_tokens: int
    local_only: bool = False
    label: str | None = None
    conversation: str | None = None


class PrivacyJudge:
    """Applies the rules to each request, and remembers what was kept here.

    It outlives the model's stay in memory, so that a conversation stays private.

    Args:
        rules: the user's.
        search: for the patterns; None: a usual one.
    """

    def __init__(
        self, rules: LocalOnlyRules | None = None, search: PatternSearch | None = None
    ) -> None:
        self.rules = rules or LocalOnlyRules()
        self._search = search or PatternSearch(self.rules.patterns)
        self._kept = PrivateWords()

    @property
    def has_patterns(self) -> bool:
        """Whether it wants to know what the model would read."""
        return bool(self._search)

    @property
    def has_nothing_to_test(self) -> bool:
        """Whether it would let any request pass that does not say itself that it stays here."""
        return not self.rules and not self._kept

    async def judge(self, words: Words) -> Privacy:
        """Judge a request; one that is kept here is remembered."""
        judged = await self._judged(words)
        if judged.local_only:
            self._kept.add(words.said, words.conversation, judged.rule)
        return judged

    async def _judged(self, words: Words) -> Privacy:
        if words.local_only:
            return Privacy(KeptBy.REQUEST)
        rule = self.rules.of_label(words.label) or self.rules.of_length(words.num_tokens)
        if rule:
            return Privacy(KeptBy.RULE, rule)
        earlier = self._kept.find(words.said, words.conversation)
        if earlier is not None:
            return Privacy(KeptBy.CONVERSATION, earlier)
        found = await self._search.first([*dict.fromkeys([*words.said, *words.read])])
        if found is not None:
            return Privacy(KeptBy.RULE, found.name, found.problem)
        return FREE

    def close(self) -> None:
        """End what it started."""
        self._search.close()
