"""Functions that a model wrote and that Python parses, as text to train it on further.

A small base model's code fails where the model repeats itself or loses count of its brackets.
Trained on those of its own continuations that are whole, it does so less often: rejection sampling,
as in STaR (arXiv 2203.14465) and Llama 2 (arXiv 2307.09288, section 3.2), with a parser as judge.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pd_core.models import LoadedModel
from pd_core.sampling_params import SamplingParams
from pd_training.continuation import continue_prompts
from pd_training.readability import begun_functions, is_loop, own_part, parses

__all__ = ["write_functions"]

_PROMPT_TOKENS = 512
# Of the prompt, what goes into the text: enough to begin a body, and most of the text is the body.
_KEPT_TOKENS = 192
_BODY_TOKENS = 600


def write_functions(
    loaded: LoadedModel, sources: Sequence[str], sampling: SamplingParams, count: int
) -> Iterator[str | None]:
    """Have a model write the bodies of functions; yield each whole one behind what precedes it.

    Args:
        loaded: the model; its context must hold 1,112 tokens.
        sources: Python documents, whose functions are begun; others have none.
        sampling: its seed also chooses the functions.
        count: of functions, at most.

    Yields:
        The text, which ends where the function does; None for a function that does not end, does
        not parse, or ends in a loop.
    """
    begun = [b for source in sources for b in begun_functions(source)]
    places = np.random.default_rng(sampling.seed).permutation(len(begun))[:count]
    chosen = [begun[i] for i in places]
    encode, decode = loaded.tokenizer.encode, loaded.tokenizer.decode
    prompts = [encode(b.before)[-_PROMPT_TOKENS:] for b in chosen]

    def has_ended(index: int, ids: list[int]) -> bool:
        return own_part(chosen[index].head, decode(ids))[1]

    bodies = continue_prompts(loaded, prompts, sampling, _BODY_TOKENS, has_ended)
    for begin, prompt, ids in zip(chosen, prompts, bodies, strict=True):
        body = decode(ids)
        ended = len(ids) < _BODY_TOKENS
        if ended and not is_loop(ids) and parses(begin, body):
            before = decode(prompt[-_KEPT_TOKENS:])
            if len(prompt) > _KEPT_TOKENS:
                before = _whole_lines(before, begin.head)
            yield before + own_part(begin.head, body)[0]
        else:
            yield None


def _whole_lines(before: str, head: str) -> str:
    """Return a text that ends in a head from its first whole line on, or the head if it has none.

    A head that is cut itself would not parse.
    """
    start = before.find("\n", 0, max(0, len(before) - len(head))) + 1
    return before[start:] if start else head
