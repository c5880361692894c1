"""What counts as readable: functions that Python parses, and texts that do not loop."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError
from pd_core.models import Segment
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_training.writing.continuation import continue_prompts
from pd_training.writing.readability import (
    begun_functions,
    documents_of,
    is_loop,
    judge,
    parses,
    repeated_share,
)

SOURCE = '''import os


class Place:
    def name(self, deep: bool = False,
             more: int = 0) -> str:
        """Say where."""
        return os.curdir

    def short(self): return 1


async def wait():  # a while
    pass
'''


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("random-tiny")


def one_by_one(
    loaded: LoadedModel, prompt: list[int], sampling: SamplingParams, n: int
) -> list[int]:
    """The slow way: a single sequence, token by token, from a fresh cache."""
    cache = loaded.model.make_cache(len(prompt) + n)
    out: list[int] = []
    for i, token in enumerate(prompt):
        hidden = loaded.model.forward(torch.tensor([token]), [Segment(cache, i, 1)])
    while len(out) < n:
        logits = loaded.model.logits(hidden)
        token = sample(logits, [sampling], [len(out)], loaded.eos_token_ids)[0]
        if token in loaded.eos_token_ids:
            break
        hidden = loaded.model.forward(
            torch.tensor([token]), [Segment(cache, len(prompt) + len(out), 1)]
        )
        out.append(token)
    return out


def test_a_batch_writes_what_each_prompt_writes_alone(tiny: LoadedModel) -> None:
    prompts = [tiny.tokenizer.encode(text) for text in ("One", "Two words", "def f(x):\n")]
    sampling = SamplingParams(temperature=1.0, top_p=0.9, seed=5)
    found = list(continue_prompts(tiny, prompts, sampling, 12))
    for i, (prompt, out) in enumerate(zip(prompts, found, strict=True)):
        alone = SamplingParams(temperature=1.0, top_p=0.9, seed=5 + i)
        assert out == one_by_one(tiny, prompt, alone, 12)
    assert len({tuple(out) for out in found}) == 3
    short = list(
        continue_prompts(tiny, prompts, sampling, 12, lambda prompt, ids: len(ids) == 2 + prompt)
    )
    assert short == [out[: 2 + i] for i, out in enumerate(found)]


def test_functions_are_begun_at_their_heads() -> None:
    begun = {b.head.strip().split("(")[0]: b for b in begun_functions(SOURCE)}
    assert sorted(begun) == ["async def wait", "def name"]
    name = begun["def name"]
    assert name.head == SOURCE[SOURCE.index("    def name") : SOURCE.index('\n        """Say')]
    assert SOURCE.startswith(name.before)
    assert name.before.endswith("-> str:")
    assert begun_functions("def broken(:\n") == []


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("\n        return 1\n\n    def other(self):\n        return (\n", True),
        ('\n        """Text\nat the margin"""\n        return 2\nx = (\n', True),
        ("\n        return (1\n        x = 2\n", False),
        ("\n        if x:\n        return 2\n", False),
        ("\n        return 3\n        y = (4,", True),  # half a line at the end is left out
        ("\n    pass\n", False),
        ("", False),
        ("\n", False),
        (" return 5\n    x = (\n", True),
    ],
)
def test_a_body_ends_with_its_indentation(body: str, right: bool) -> None:
    name = next(b for b in begun_functions(SOURCE) if "name" in b.head)
    assert parses(name, body) is right


def test_lines_are_counted_as_the_parser_counts_them() -> None:
    source = 'import os\n\x0c\ndef f(a="\u2028"):\n    return a\n\ndef g(\n    b):\n    return b\n'
    assert [b.head for b in begun_functions(source)] == ['def f(a="\u2028"):', "def g(\n    b):"]


def test_repeats_are_runs_of_four_tokens_that_stood_before() -> None:
    assert repeated_share([1, 2, 3]) == 0
    assert repeated_share(list(range(20))) == 0
    assert repeated_share([1, 2, 3, 4] * 2) == pytest.approx(1 / 5)
    assert repeated_share([7] * 24) == pytest.approx(20 / 21)


def test_loops_are_periods_at_the_end() -> None:
    text = list(range(200))
    assert not is_loop(text)
    assert is_loop([*text, *([7, 8, 9] * 30)])
    assert not is_loop([*([7, 8, 9] * 30), *text])
    assert not is_loop([7, 8, 9] * 10), "too short to tell"


def test_documents_come_apart_at_the_end_of_sequence() -> None:
    ids = np.array([5, 6, 0, 7, 0, 0, 8], dtype=np.uint16)
    assert documents_of(ids, 0) == [[5, 6], [7], [8]]


@pytest.mark.heavy
@pytest.mark.slow
def test_a_model_is_judged_on_as_many_texts_as_asked(tiny: LoadedModel) -> None:
    documents = [tiny.tokenizer.encode(SOURCE), tiny.tokenizer.encode("Some words. " * 20)]
    found = judge(tiny, documents, SamplingParams(temperature=1.0), count=2)
    assert (found.functions, found.texts) == (2, 4)
    assert found.parsed == 0, "babble does not parse"
    assert len(found.samples) == 4


def test_what_cannot_be_judged_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="no held-out document"):
        judge(tiny, [], SamplingParams(), count=1)
    short = SimpleNamespace(config=replace(tiny.model.config, max_context_tokens=1535))
    with pytest.raises(
        ConfigError, match="takes 1536 tokens of context, and the model declares 1535"
    ):
        judge(replace(tiny, model=short), [[1, 2]], SamplingParams(), count=1)  # type: ignore[arg-type]
