"""From text to token ids and back, for /tokenize and /detokenize; bounded as prompts are."""

from functools import partial

from pd_core.errors import InvalidRequest, PromptTooLong
from pd_device_client.api.completions.messages import turns
from pd_device_client.api.completions.parameters import DetokenizeParameters, TokenizeParameters
from pd_device_client.api.completions.prompts import chat_prompt
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.tools.functions import offered
from pd_device_client.api.tools.prompt import ChatPrompt
from pd_device_client.api.tools.template_values import template_values
from pd_device_client.device.device import Device
from pd_device_client.device.prompt_length import check_length

__all__ = ["detokenized", "tokenized"]

_FEW_IDS = 1 << 16
_CONTEXTS = 4


async def tokenized(device: Device, asked: TokenizeParameters) -> list[int]:
    """Return the ids of a text or of a chat.

    Raises:
        Refusal: there is none, it is wrong, or it is far longer than any context here. A text that
            is only a little too long is counted, so that a caller can see by how much.
    """
    longest = device.client.max_context_tokens
    if asked.messages is not None:
        values = template_values(asked.chat_template_kwargs, None)
        chat = ChatPrompt(turns(asked.messages), offered(asked.tools, None, None), values)
        return list(await chat_prompt(device, chat, asked.add_special_tokens, longest))
    if asked.prompt is None:
        raise Refusal("prompt is missing; give it, or messages", "prompt")
    special = asked.add_special_tokens is not False
    encode = partial(_encode, device, asked.prompt, longest, special=special)
    try:
        return await device.encoded(len(asked.prompt), encode)
    except PromptTooLong as error:
        raise Refusal(str(error), "prompt", code="context_length_exceeded") from error
    except InvalidRequest as error:
        raise Refusal(str(error), "prompt") from error


def _encode(device: Device, text: str, longest: int | None, *, special: bool) -> list[int]:
    tokenizer = device.loaded.tokenizer
    check_length(tokenizer, text, longest)
    return tokenizer.encode_prompt(text) if special else tokenizer.encode(text)


async def detokenized(device: Device, asked: DetokenizeParameters) -> str:
    """Return the text of token ids.

    Raises:
        Refusal: an id is none of the vocabulary, or there are more than any answer of `tokenized`
            or any context here has.
    """
    tokens, tokenizer = asked.tokens, device.loaded.tokenizer
    longest = device.client.max_context_tokens
    if longest is not None and len(tokens) > (most := max(_FEW_IDS, _CONTEXTS * longest)):
        raise Refusal(
            f"tokens has {len(tokens)} ids; at most {most} are made into text at once, send fewer",
            "tokens",
            code="context_length_exceeded",
        )
    wrong = next((t for t in tokens if t >= tokenizer.vocab_size), None)
    if wrong is not None:
        raise Refusal(
            f"token id {wrong} is not in the vocabulary of {tokenizer.vocab_size} ids", "tokens"
        )
    return await device.encoded(len(tokens), partial(tokenizer.decode, tokens))
