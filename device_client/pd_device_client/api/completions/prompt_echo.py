"""A completion's prompt, given back before its answer (`echo`) and looked up in the model."""

from collections.abc import Sequence
from itertools import chain

from pd_core.generation import TokenLogprobs
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.api.completions.logprobs import Entry
from pd_device_client.api.completions.parameters import CompletionParameters

__all__ = ["echo_entries", "echo_texts"]


def echo_texts(
    asked: CompletionParameters, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> list[str]:
    """Return the prompts as the answers' texts begin with them.

    Args:
        asked: has them as they came; a text is given back as it is.
        prompts: their token ids.
        tokenizer: makes text of ids.
    """
    if isinstance(asked.prompt, str):
        return [asked.prompt]
    texts = [one for one in asked.prompt if isinstance(one, str)]
    return texts or [tokenizer.decode(prompt) for prompt in prompts]


def echo_entries(
    tokenizer: Tokenizer, token_ids: Sequence[int], known: Sequence[TokenLogprobs]
) -> list[Entry]:
    """Return a prompt's entries, as of an answer's tokens.

    Args:
        tokenizer: says where each token's text begins.
        token_ids: the prompt.
        known: of all its tokens but the first, of which nothing can be known.
    """
    source = tokenizer.stream()
    texts = chain(*(source.push(token_id) for token_id in token_ids), source.flush())
    entries, offset = list[Entry](), 0
    for (_, text), token_id, one in zip(texts, token_ids, (None, *known), strict=True):
        entries.append((token_id, one, offset))
        offset += len(text)
    return entries
