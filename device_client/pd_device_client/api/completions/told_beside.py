"""What an answer tells beside its text: logprobs, and its prompt."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from pd_core.generation import TokenLogprobs
from pd_core.text.token_bytes import TokenBytes
from pd_device_client.api.completions.logprobs import (
    ChatLogprobs,
    Entries,
    TextLogprobs,
    prompt_report,
)
from pd_device_client.api.completions.parameters import ChatParameters, CompletionParameters
from pd_device_client.api.completions.prompt_echo import echo_entries, echo_texts
from pd_device_client.api.completions.run import Choice
from pd_device_client.device.device import Device

__all__ = ["ToldBeside"]


class ToldBeside:
    """What is told of prompts and tokens beside the answers' texts.

    Args:
        device: has the tokenizer, and a model that may be asked about prompts.
        asked: the request.
        prompts: its prompts.
    """

    def __init__(
        self,
        device: Device,
        asked: ChatParameters | CompletionParameters,
        prompts: Sequence[tuple[int, ...]],
    ) -> None:
        self._device = device
        self._asked = asked
        self._prompts = prompts
        self._known: dict[tuple[int, int], list[TokenLogprobs]] = {}
        self._texts: list[str] | None = None
        if isinstance(asked, CompletionParameters) and asked.echo:
            self._texts = echo_texts(asked, prompts, device.loaded.tokenizer)

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return self._device.loaded.tokenizer.token_bytes()

    async def of(self, choice: Choice, prompt: int) -> Choice:
        """Return a choice with what is to be told of it.

        Args:
            choice: one of the answers.
            prompt: the number of its prompt.
        """
        asked, device, ids = self._asked, self._device, self._prompts[prompt]
        if self._texts is not None:
            choice = replace(choice, echo=self._texts[prompt])
        if not isinstance(asked, ChatParameters):
            choice = replace(choice, prompt_logprobs=await self._prompt_report(prompt))
        if asked.num_logprobs is None:
            return choice
        if isinstance(asked, ChatParameters):
            return replace(choice, logprobs=Entries(ChatLogprobs(self._token_bytes)))
        form = TextLogprobs(self._token_bytes)
        if choice.echo is None:
            return replace(choice, logprobs=Entries(form))
        known = await self._looked_up(prompt, asked.num_logprobs)
        entries = echo_entries(device.loaded.tokenizer, ids, known)
        return replace(choice, logprobs=Entries(form, entries, len(choice.echo)))

    async def of_all(self) -> dict[str, Any]:
        """Return what is told beside all choices: vLLM tells of a chat's only prompt there."""
        if not isinstance(self._asked, ChatParameters) or self._asked.prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": await self._prompt_report(0)}

    async def _prompt_report(self, prompt: int) -> list[dict[str, Any] | None] | None:
        """Return what is told of a prompt's tokens; None where nobody asks."""
        if (count := self._asked.prompt_logprobs) is None:
            return None
        known = await self._looked_up(prompt, count)
        return prompt_report(self._token_bytes, self._prompts[prompt], known)

    async def _looked_up(self, prompt: int, count: int) -> list[TokenLogprobs]:
        """Return what the local model says of a prompt's tokens; n answers share it."""
        if (prompt, count) not in self._known:
            known = await self._device.client.prompt_logprobs(self._prompts[prompt], count)
            self._known[prompt, count] = known
        return self._known[prompt, count]
