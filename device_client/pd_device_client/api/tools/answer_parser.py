"""Chooses how an answer's text is split into parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pd_device_client.api.tools.call_ids import call_ids
from pd_device_client.api.tools.call_parser import CallParser
from pd_device_client.api.tools.families import FAMILIES, Family, FamilyName, family_of
from pd_device_client.api.tools.forced_call import ForcedCallParser, ForcedCallsParser
from pd_device_client.api.tools.functions import Offer
from pd_device_client.api.tools.parts import PartsParser
from pd_device_client.api.tools.reasoning import PlainParser, ReasoningParser
from pd_device_client.engine.served_model import ServedModel

__all__ = ["AnswerParsing", "ReasoningChoice", "ToolParserChoice"]

_THOUGHTS = ("<think>", "</think>")
_LOOK_BACK = 16  # tokens; more than the longest way to write a tag


class ToolParserChoice(StrEnum):
    """How calls are found in answers: as the template teaches, as one family writes, or not."""

    AUTO = "auto"
    HERMES = "hermes"
    LLAMA3 = "llama3"
    MISTRAL = "mistral"
    JSON = "json"
    NONE = "none"


class ReasoningChoice(StrEnum):
    """Whether thoughts are split off: if the template knows them, always, or never."""

    AUTO = "auto"
    THINK = "think"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class AnswerParsing:
    """How the answers of one request are split.

    Attributes:
        loaded: the model that answers.
        offer: the functions that may be called; None: none.
        formed: the answer has a form, so it has no thoughts, and calls are plain JSON.
        tool_parser: the setting.
        reasoning: the setting.
    """

    loaded: ServedModel
    offer: Offer | None
    formed: bool
    tool_parser: ToolParserChoice
    reasoning: ReasoningChoice

    def parser(self, request_id: str, prompt_token_ids: Sequence[int]) -> PartsParser:
        """Return a parser for one answer.

        Args:
            request_id: names the calls.
            prompt_token_ids: its prompt, which may have opened the thoughts.
        """
        calls = self._calls(request_id)
        if self.formed or not self.splits_thoughts:
            return calls
        tail = self.loaded.tokenizer.decode(
            prompt_token_ids[-_LOOK_BACK:], skip_special_tokens=False
        )
        return ReasoningParser(calls, begun=tail.rstrip().endswith(_THOUGHTS[0]))

    def marks(self, stops: Sequence[str]) -> Mapping[int, str]:
        """Return the special tokens that mean something, and their texts.

        Args:
            stops: stop strings of the request: what ends an answer is no part of it.
        """
        texts = set[str]()
        if self.offer is not None and not self.formed:
            texts.update(self._family.hidden)
        if self.splits_thoughts and not self.formed:
            texts.update(_THOUGHTS)
        return {
            token_id: text
            for token_id, text in self.loaded.tokenizer.special_tokens.items()
            if text in texts and not any(text in stop for stop in stops)
        }

    def _calls(self, request_id: str) -> PartsParser:
        offer = self.offer
        if offer is None:
            return PlainParser()
        ids = call_ids(request_id, short=self._family.nine_letters)
        if offer.named is not None:
            return ForcedCallParser(offer.named.name, ids)
        if self.tool_parser is ToolParserChoice.NONE and not self.formed:
            return PlainParser()
        family = FAMILIES[FamilyName.JSON] if self.formed else self._family
        calls = CallParser(family, offer.names, ids, parallel=offer.parallel)
        return ForcedCallsParser(calls) if offer.required and self.formed else calls

    @property
    def _template(self) -> str:
        template = self.loaded.chat_template
        return "" if template is None else template.text

    @property
    def _family(self) -> Family:
        if self.tool_parser in (ToolParserChoice.AUTO, ToolParserChoice.NONE):
            return FAMILIES[family_of(self._template)]
        return FAMILIES[FamilyName(self.tool_parser)]

    @property
    def splits_thoughts(self) -> bool:
        """Whether what the model thinks is told apart from its answer."""
        if self.reasoning is ReasoningChoice.AUTO:
            return _THOUGHTS[0] in self._template or _THOUGHTS[1] in self._template
        return self.reasoning is ReasoningChoice.THINK
