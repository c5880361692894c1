"""Real texts as prompts: passages of a document, and facts hidden in them."""

import pydoc_data.topics
import random
from dataclasses import dataclass
from pathlib import Path

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError
from pd_core.refinement import Ranges
from pd_core.text.protected import protected_ranges
from pd_device_client.device.prompt import conversation_token_ids

__all__ = ["Needle", "Passage", "document", "needles", "passages"]

_PLACES = ("Lisbon", "Ottawa", "Nairobi", "Jakarta", "Quito", "Oslo", "Seoul", "Perth")
_ANSWER_ROOM = 32  # tokens


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text as a prompt, and what follows there.

    Attributes:
        prompt: its tokens.
        following: the tokens after it.
    """

    prompt: list[int]
    following: list[int]


@dataclass(frozen=True, slots=True)
class Needle:
    """A question about one sentence in a long text.

    Attributes:
        prompt: the text with the sentence and the question at its end, in the model's template.
        protected: what the device keeps of it in any case.
        answer: what an answer has to contain.
    """

    prompt: list[int]
    protected: Ranges
    answer: str


def document(path: Path | None) -> str:
    """Return a text to take prompts from; None: what `help()` says of the Python language.

    Raises:
        ConfigError: the file cannot be read as a text.
    """
    if path is None:
        topics: dict[str, str] = pydoc_data.topics.topics
        return "\n\n".join(topics[name] for name in sorted(topics))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--text {path} cannot be read as a text: {error}") from error


def passages(loaded: LoadedModel, text: str, count: int, length: int, more: int) -> list[Passage]:
    """Cut passages out of a text, spread evenly over it.

    Raises:
        ConfigError: the text is too short, or the model's context.
    """
    _check_context(loaded, length + more)
    prefix = list(loaded.tokenizer.prefix_ids)
    ids = loaded.tokenizer.encode(text)
    size = length - len(prefix)
    if len(ids) < count * (size + more):
        raise ConfigError(
            f"the text has {len(ids)} tokens, and {count} prompts of {length} with {more} after "
            f"them need {count * (size + more)}; give a longer --text, or fewer --passages"
        )
    step = len(ids) // max(count, 1)
    starts = range(0, count * step, step) if count else ()
    return [
        Passage([*prefix, *ids[at : at + size]], ids[at + size : at + size + more]) for at in starts
    ]


def needles(loaded: LoadedModel, text: str, count: int, length: int, seed: int) -> list[Needle]:
    """Hide facts in pieces of a text, at depths from its beginning to its end.

    Raises:
        ConfigError: the text is too short, or the model's context.
    """
    _check_context(loaded, length + _ANSWER_ROOM)
    ids, chance = loaded.tokenizer.encode(text), random.Random(seed)
    made = []
    for index in range(count):
        place, code = chance.choice(_PLACES), str(chance.randrange(10_000, 100_000))
        fact = f" The secret number of {place} is {code}. "
        question = f"\n\nWhat is the secret number of {place}? Answer with the number."
        size = length - len(_asked(loaded, fact + question))
        at = index * len(ids) // count
        if at + size > len(ids) or size < 1:
            raise ConfigError(
                f"the text has {len(ids)} tokens, too few for {count} prompts of {length} with a "
                "fact in each; give a longer --text"
            )
        hay = loaded.tokenizer.decode(ids[at : at + size])
        depth = max(hay.find(" ", int(len(hay) * (index + 0.5) / count)), 0)
        prompt = _asked(loaded, hay[:depth] + fact + hay[depth:] + question)
        made.append(Needle(prompt, protected_ranges(loaded.tokenizer, prompt), code))
    return made


def _asked(loaded: LoadedModel, content: str) -> list[int]:
    return list(conversation_token_ids(loaded, [{"role": "user", "content": content}]))


def _check_context(loaded: LoadedModel, num_tokens: int) -> None:
    context = loaded.model.config.max_context_tokens
    if num_tokens > context:
        raise ConfigError(
            f"prompts of {num_tokens} tokens with their continuation do not fit the model's "
            f"context of {context}; lower --prompt-tokens"
        )
