"""Whether a model writes readable text: functions that parse, and no repetition loops.

Prompts are held-out documents. A function's prompt is the real text up to the end of its `def`
line, without the line break, which is part of the same token as the indentation after it. The model
writes the body, up to the first line that is indented less. A loop is a text whose end repeats the
same few tokens.
"""

import ast
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pd_core.checkpoints.loading import LoadedModel
from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_training.writing.continuation import continue_prompts

__all__ = [
    "Begun",
    "Readability",
    "begun_functions",
    "documents_of",
    "is_loop",
    "judge",
    "own_part",
    "parses",
    "repeated_share",
]

_BEFORE_TOKENS = 512  # tokens of a document before the continuation
_BODY_TOKENS = 1024  # most functions are much shorter
_PAGE_TOKENS = 256
# A loop: this many tokens at the end repeat with at most this period.
_LOOP_TOKENS, _LONGEST_PERIOD = 64, 16
_RUN_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Readability:
    """The result of judging a model.

    Attributes:
        functions: number of functions begun.
        parsed: how many of them parse with the model's body, by Python's own parser.
        texts: number of continuations checked for loops, including the functions' bodies.
        loops: how many of them are loops.
        repeated, repeated_by_people: mean share of a page's runs of four tokens that occur earlier
            in it, as continued by the model and by its human author.
        samples: some continuations, with the line before them.
    """

    functions: int
    parsed: int
    texts: int
    loops: int
    repeated: float
    repeated_by_people: float
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Begun:
    """A function up to its `def` line.

    Attributes:
        before: the document up to the end of that line, without its line break.
        head: the `def` line or lines, without the last line break.
    """

    before: str
    head: str


def documents_of(ids: np.ndarray, eos_token_id: int) -> list[list[int]]:
    """Cut a split's ids into documents, without the token between them."""
    ends = np.flatnonzero(ids == eos_token_id)
    parts = (part[part != eos_token_id] for part in np.split(ids, ends + 1))
    return [part.tolist() for part in parts if len(part)]


def begun_functions(source: str) -> list[Begun]:
    """Return the beginnings of a Python document's functions; none if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = _lines(source)
    begun = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # If the body is on the line of its head, there is nothing to write.
        if node.body[0].lineno > node.lineno:
            end = _end_of_head(lines, node)
            if end is not None:
                before, head = "".join(lines[:end]), "".join(lines[node.lineno - 1 : end])
                begun.append(Begun(before.rstrip("\n"), head.rstrip("\n")))
    return begun


def parses(begun: Begun, body: str) -> bool:
    """Return whether Python parses a function with this body, cut where its indentation ends."""
    # An indented function is put into a block: dedenting it would change multi-line strings.
    block = "if True:\n" if begun.head[:1].isspace() else ""
    whole = block + begun.head + own_part(begun.head, body)[0]
    try:
        ast.parse(whole)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def repeated_share(ids: Sequence[int]) -> float:
    """Return the share of a text's runs of four tokens that occur earlier in it; 0 if too short."""
    runs = list(zip(*(ids[i:] for i in range(_RUN_TOKENS)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def own_part(head: str, body: str) -> tuple[str, bool]:
    """Return the rest of the head's line with the lines indented further, and whether they ended.

    A text that was cut for its length ends in an incomplete line, which is left out.
    """
    margin = len(head) - len(head.lstrip())
    first, *lines = _lines(body) or [""]
    kept = [first]
    for line in lines:
        blank = not line.strip()
        if not blank and len(line) - len(line.lstrip()) <= margin and not _in_string(kept):
            return "".join(kept), True
        kept.append(line)
    if not kept[-1].endswith("\n"):
        kept.pop()
    return "".join(kept), False


def is_loop(ids: Sequence[int]) -> bool:
    """Return whether a text ends in the same few tokens over and over."""
    tail = list(ids[-_LOOP_TOKENS:])
    if len(tail) < _LOOP_TOKENS:
        return False
    return any(tail[p:] == tail[:-p] for p in range(1, _LONGEST_PERIOD + 1))


def judge(
    loaded: LoadedModel,
    documents: Sequence[Sequence[int]],
    sampling: SamplingParams,
    count: int = 100,
) -> Readability:
    """Have a model write `count` functions and as many pages, and judge them.

    Args:
        loaded: the model.
        documents: held-out, as token ids.
        sampling: its seed also chooses where the texts begin.

    Raises:
        ConfigError: the model's context is too short, or there is no document.
    """
    _check(loaded, documents)
    decode, encode = loaded.tokenizer.decode, loaded.tokenizer.encode
    continuation = loaded.tokenizer.continuation
    chance = np.random.default_rng(sampling.seed)
    begun = [b for ids in documents for b in begun_functions(decode(list(ids)))]
    chosen = [begun[i] for i in chance.permutation(len(begun))[:count]]
    heads = [encode(b.before)[-_BEFORE_TOKENS:] for b in chosen]

    def has_ended(index: int, ids: list[int]) -> bool:
        return own_part(chosen[index].head, decode(ids))[1]

    bodies = list(continue_prompts(loaded, heads, sampling, _BODY_TOKENS, has_ended))
    texts = [continuation(*pair) for pair in zip(bodies, heads, strict=True)]
    pages, rests = zip(*(_some_page(documents, chance) for _ in range(count)), strict=True)
    written = list(continue_prompts(loaded, pages, sampling, _PAGE_TOKENS))
    samples = [b.head + own_part(b.head, t)[0] for b, t in zip(chosen[:3], texts, strict=False)]
    samples += [
        decode(p[-32:]) + "⟶" + continuation(w, p) for p, w in zip(pages[:3], written, strict=False)
    ]
    return Readability(
        functions=len(chosen),
        parsed=sum(parses(b, text) for b, text in zip(chosen, texts, strict=True)),
        texts=len(bodies) + len(written),
        loops=sum(map(is_loop, [*bodies, *written])),
        repeated=float(np.mean([repeated_share(ids) for ids in written])),
        repeated_by_people=float(np.mean([repeated_share(ids) for ids in rests])),
        samples=tuple(samples),
    )


def _check(loaded: LoadedModel, documents: Sequence[Sequence[int]]) -> None:
    needed, limit = _BEFORE_TOKENS + _BODY_TOKENS, loaded.model.config.max_context_tokens
    if limit < needed:
        raise ConfigError(
            f"judging takes {needed} tokens of context, and the model declares {limit}; train one "
            "with a larger --max-context"
        )
    if not documents:
        raise ConfigError(
            "the corpus has no held-out document; prepare it again with a larger --held-out"
        )


def _end_of_head(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> int | None:
    """Return the number of lines up to the end of the head: the first that ends in a colon."""
    for number in range(node.lineno, node.body[0].lineno):
        if lines[number - 1].split("#")[0].rstrip().endswith(":"):
            return number
    return None


def _lines(text: str) -> list[str]:
    """Return a text's lines as Python's parser counts them: a form feed, for example, ends none."""
    return io.StringIO(text, newline="").readlines()


def _in_string(lines: list[str]) -> bool:
    """Return whether the lines leave a triple-quoted string open."""
    text = "".join(lines)
    return text.count('"""') % 2 == 1 or text.count("'''") % 2 == 1


def _some_page(
    documents: Sequence[Sequence[int]], chance: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return a stretch of a document from a random position, and its real continuation."""
    ids = documents[int(chance.integers(len(documents)))]
    end = int(chance.integers(1, len(ids) + 1))
    return list(ids[max(0, end - _BEFORE_TOKENS) : end]), list(ids[end : end + _PAGE_TOKENS])
