"""Functions that a model wrote and Python can parse, as text to train the model further.

A small base model's code fails when the model repeats itself or miscounts its brackets. Trained on
its own complete continuations, it does so less often: rejection sampling, as in STaR
(arXiv 2203.14465) and Llama 2 (arXiv 2307.09288, section 3.2), with a parser as the judge.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_training.writing.continuation import continue_prompts
from pd_training.writing.readability import Begun, begun_functions, is_loop, own_part, parses

__all__ = ["choose_functions", "write_functions"]

_PROMPT_TOKENS = 512
# Tokens of the prompt that go into the text: enough to begin a body, which is most of the text.
_KEPT_TOKENS = 192
_BODY_TOKENS = 600


def choose_functions(sources: Sequence[str], seed: int, count: int) -> list[Begun]:
    """Return the beginnings of functions in Python documents, at most `count`, drawn at random.

    Raises:
        ConfigError: there is no function.
    """
    begun = [b for source in sources for b in begun_functions(source)]
    if not begun:
        raise ConfigError(
            "the corpus has no Python function to begin; give Python source, or hold out less of it"
        )
    return [begun[i] for i in np.random.default_rng(seed).permutation(len(begun))[:count]]


def write_functions(
    loaded: LoadedModel, chosen: Sequence[Begun], sampling: SamplingParams
) -> Iterator[str | None]:
    """Have a model write the bodies of functions; yield each complete one with the text before it.

    Yields:
        The text up to the end of the function; None for a function that does not end, does not
        parse, or ends in a loop.

    Raises:
        ConfigError: the model's context is too short.
    """
    needed, limit = _PROMPT_TOKENS + _BODY_TOKENS, loaded.model.config.max_context_tokens
    if limit < needed:
        raise ConfigError(
            f"writing functions takes {needed} tokens of context, and the model declares {limit}; "
            "train one with a larger --max-context"
        )
    encode, decode = loaded.tokenizer.encode, loaded.tokenizer.decode
    prompts = [encode(b.before)[-_PROMPT_TOKENS:] for b in chosen]

    def has_ended(index: int, ids: list[int]) -> bool:
        return own_part(chosen[index].head, decode(ids))[1]

    bodies = continue_prompts(loaded, prompts, sampling, _BODY_TOKENS, has_ended)
    for begin, prompt, ids in zip(chosen, prompts, bodies, strict=True):
        body = loaded.tokenizer.continuation(ids, prompt)
        ended = len(ids) < _BODY_TOKENS
        if ended and not is_loop(ids) and parses(begin, body):
            before = decode(prompt[-_KEPT_TOKENS:])
            if len(prompt) > _KEPT_TOKENS:
                before = _whole_lines(before, begin.head)
            yield before + own_part(begin.head, body)[0]
        else:
            yield None


def _whole_lines(before: str, head: str) -> str:
    """Return a text that ends in a head, from its first complete line on, but at least the head.

    A head that is cut would not parse.
    """
    start = before.find("\n", 0, max(0, len(before) - len(head))) + 1
    return before[start:] if start else head
