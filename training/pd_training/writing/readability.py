"""Whether a model writes what can be read: functions that parse, and no repetition loops.

Prompts are held-out documents. A function is begun by real text up to the end of its `def` line,
without the line break, which tokens hold together with the indentation after it; the model writes
its body, up to the first line that is not indented as far. A loop is a text whose
end repeats the same few tokens.
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

_BEFORE_TOKENS = 512  # of a document before what is to be continued
_BODY_TOKENS = 1024  # most functions end long before
_PAGE_TOKENS = 256
# A loop: this many tokens at the end, of a period at most this long.
_LOOP_TOKENS, _LONGEST_PERIOD = 64, 16
_RUN_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Readability:
    """What was found.

    Attributes:
        functions: that were begun.
        parsed: of them, with the model's body, by Python's own parser.
        texts: continuations that were looked at for loops, the functions' bodies among them.
        loops: of them.
        repeated, repeated_by_people: mean share of a page's runs of four tokens that stood in it
            before, as the model wrote it on and as people did.
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
        head: the `def` line or lines, likewise.
    """

    before: str
    head: str


def documents_of(ids: np.ndarray, eos_token_id: int) -> list[list[int]]:
    """Cut a split's ids into documents, without the token between them."""
    ends = np.flatnonzero(ids == eos_token_id)
    parts = (part[part != eos_token_id] for part in np.split(ids, ends + 1))
    return [part.tolist() for part in parts if len(part)]


def begun_functions(source: str) -> list[Begun]:
    """Return a Python document's functions, begun; none where it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = _lines(source)
    begun = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # A body on the line of its head leaves nothing to write.
        if node.body[0].lineno > node.lineno:
            end = _end_of_head(lines, node)
            if end is not None:
                before, head = "".join(lines[:end]), "".join(lines[node.lineno - 1 : end])
                begun.append(Begun(before.rstrip("\n"), head.rstrip("\n")))
    return begun


def parses(begun: Begun, body: str) -> bool:
    """Tell whether Python parses a function with this body, cut where its indentation ends."""
    # An indented function stands in a block: to dedent it would change strings at the margin.
    block = "if True:\n" if begun.head[:1].isspace() else ""
    whole = block + begun.head + own_part(begun.head, body)[0]
    try:
        ast.parse(whole)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def repeated_share(ids: Sequence[int]) -> float:
    """Return which share of a text's runs of four tokens stood in it before; 0 for a short one."""
    runs = list(zip(*(ids[i:] for i in range(_RUN_TOKENS)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def own_part(head: str, body: str) -> tuple[str, bool]:
    """Return the rest of the head's line and the lines indented further, and whether they ended.

    A text that was cut for its length ends in half a line, which is left out.
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
    """Tell whether a text ends in the same few tokens over and over."""
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
    """Have a model write `count` functions and as many pages, and look at them.

    Args:
        loaded: the model.
        documents: held-out, as token ids.
        sampling: its seed also chooses the places.

    Raises:
        ConfigError: the model's context is too short, or there is no document.
    """
    _check(loaded, documents)
    decode, encode = loaded.tokenizer.decode, loaded.tokenizer.encode
    chance = np.random.default_rng(sampling.seed)
    begun = [b for ids in documents for b in begun_functions(decode(list(ids)))]
    chosen = [begun[i] for i in chance.permutation(len(begun))[:count]]
    heads = [encode(b.before)[-_BEFORE_TOKENS:] for b in chosen]

    def has_ended(index: int, ids: list[int]) -> bool:
        return own_part(chosen[index].head, decode(ids))[1]

    bodies = list(continue_prompts(loaded, heads, sampling, _BODY_TOKENS, has_ended))
    texts = [decode(body) for body in bodies]
    pages, rests = zip(*(_some_page(documents, chance) for _ in range(count)), strict=True)
    written = list(continue_prompts(loaded, pages, sampling, _PAGE_TOKENS))
    samples = [b.head + own_part(b.head, t)[0] for b, t in zip(chosen[:3], texts, strict=False)]
    samples += [decode(p[-32:]) + "⟶" + decode(w) for p, w in zip(pages[:3], written, strict=False)]
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
    """Return how many lines end with the head: the first whose code ends in a colon."""
    for number in range(node.lineno, node.body[0].lineno):
        if lines[number - 1].split("#")[0].rstrip().endswith(":"):
            return number
    return None


def _lines(text: str) -> list[str]:
    """Return a text's lines as Python's parser counts them: a form feed, say, ends none."""
    return io.StringIO(text, newline="").readlines()


def _in_string(lines: list[str]) -> bool:
    """Tell whether the lines leave a triple-quoted string open."""
    text = "".join(lines)
    return text.count('"""') % 2 == 1 or text.count("'''") % 2 == 1


def _some_page(
    documents: Sequence[Sequence[int]], chance: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return a stretch of a document, from any place in it, and how it goes on."""
    ids = documents[int(chance.integers(len(documents)))]
    end = int(chance.integers(1, len(ids) + 1))
    return list(ids[max(0, end - _BEFORE_TOKENS) : end]), list(ids[end : end + _PAGE_TOKENS])
