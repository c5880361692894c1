"""The prompt of a chat, with its functions, by the model's own template where that knows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tool_style import ToolStyle
from pd_device_client.api.tools.families import FAMILIES, family_of
from pd_device_client.api.tools.functions import Offer
from pd_device_client.api.tools.generic_chat import generic_messages
from pd_device_client.api.tools.template_chat import template_messages
from pd_device_client.api.tools.turns import Turn
from pd_device_client.device.prompt import conversation_token_ids, text_token_ids
from pd_device_client.engine.served_model import ServedModel

__all__ = ["ChatPrompt"]

_OPEN_THOUGHTS, _NO_THOUGHTS = "<think>", "<think>\n\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """What a prompt is made of.

    Attributes:
        turns: what was said.
        offer: the functions that may be called.
        values: further variables of the template.
        formed: the answer has a form, so the model cannot think before it.
    """

    turns: Sequence[Turn]
    offer: Offer | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    formed: bool = False

    @property
    def num_characters(self) -> int:
        """About as many as the prompt will have."""
        functions = self.offer.functions if self.offer else ()
        return sum(turn.num_characters for turn in self.turns) + sum(
            len(str(function.told)) for function in functions
        )

    def token_ids(
        self,
        loaded: ServedModel,
        *,
        special: bool | None = None,
        max_context_tokens: int | None = None,
    ) -> tuple[int, ...]:
        """Return the prompt's ids; see `conversation_token_ids`.

        Raises:
            InvalidRequest: there is no text, or the template refuses the chat.
            PromptTooLong: it cannot fit.
        """
        template = loaded.chat_template
        if template is None:
            return conversation_token_ids(
                loaded,
                generic_messages(self.turns, self.offer),
                special=special,
                max_context_tokens=max_context_tokens,
            )
        values = {"enable_thinking": False, **self.values} if self.formed else self.values
        messages, tools = self._told(template)
        text = template.render(messages, tools=tools, values=values)
        if self.formed and text.rstrip().endswith(_OPEN_THOUGHTS):
            text = text.rstrip().removesuffix(_OPEN_THOUGHTS) + _NO_THOUGHTS
        return text_token_ids(
            loaded, text, special=bool(special), max_context_tokens=max_context_tokens
        )

    def _told(
        self, template: ChatTemplate
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None]:
        """Return messages and tools in the template's own form, or plain messages alone."""
        if self.offer is None and not any(turn.calls or turn.answers for turn in self.turns):
            return template_messages(self.turns, ToolStyle(knows_tools=False)), None
        style = template.tool_style()
        if not style.knows_tools:
            system = style.knows_system
            return generic_messages(self.turns, self.offer, knows_system=system), None
        short_ids = FAMILIES[family_of(template.text)].nine_letters
        messages = template_messages(self.turns, style, short_ids=short_ids)
        return messages, [
            function.told for function in self.offer.functions
        ] if self.offer else None
