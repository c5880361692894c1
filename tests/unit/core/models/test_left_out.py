"""Positions that are left out: the rest is computed as one pass over it with its own positions."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.integer.integer_lm import IntegerLM
from pd_core.models import CausalLM, Segment
from tests.integer_models import way
from tests.unit.core.models.test_prompt_scores import PLAIN, SHARING, build, prompt

LENGTH = 700  # more than a block of keys
KEPT = (*range(100), *range(164, 300), *range(310, 311), *range(450, LENGTH))
Model = CausalLM | IntegerLM


def integer(name: str, monkeypatch: pytest.MonkeyPatch) -> IntegerLM:
    with way(monkeypatch, name):
        float_model = build(PLAIN["gqa"])
        tensors = float_model.tensors()
        return IntegerLM(float_model.config, tensors.__getitem__, device=torch.device("cpu"))


@pytest.fixture(params=[*PLAIN, *SHARING, "integer-torch", "integer-native"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Model:
    name = str(request.param)
    if name.startswith("integer"):
        return integer("off" if name == "integer-torch" else "portable", monkeypatch)
    return build({**PLAIN, **SHARING}[name])


def run(model: Model, ids: torch.Tensor, positions: tuple[int, ...] | None, chunks: Any) -> Any:
    """Return the hidden rows of tokens fed in chunks, and the cache."""
    cache, rows, first = model.make_cache(len(ids)), [], 0
    for count in chunks:
        at = None if positions is None else positions[first : first + count]
        segment = Segment(cache, first, count, at)
        rows.append(model.forward(ids[first : first + count], [segment]))
        first += count
    assert first == len(ids)
    return torch.cat(rows), cache


@pytest.mark.slow
def test_all_positions_kept_is_the_full_prompt_bit_for_bit(model: Model) -> None:
    ids = prompt(LENGTH)
    full, _ = run(model, ids, None, [LENGTH])
    kept, _ = run(model, ids, tuple(range(LENGTH)), [LENGTH])
    assert torch.equal(full, kept)


@pytest.mark.slow
def test_chunks_give_the_bits_of_one_pass(model: Model) -> None:
    ids = prompt(LENGTH)[list(KEPT)]
    whole, _ = run(model, ids, KEPT, [len(KEPT)])
    chunks = [100, 1, 37, 128, 128, len(KEPT) - 394]
    cut, _ = run(model, ids, KEPT, chunks)
    assert torch.equal(whole, cut)


@pytest.mark.slow
def test_what_was_read_in_full_before_stays_as_it_is(model: Model) -> None:
    ids = prompt(LENGTH)
    full, cache = run(model, ids[:100], None, [100])
    rest, at = ids[list(KEPT[100:])], KEPT[100:]
    cache.reserve(len(KEPT))
    later = model.forward(rest, [Segment(cache, 100, len(rest), at)])
    whole, _ = run(model, ids[list(KEPT)], KEPT, [len(KEPT)])
    assert torch.equal(torch.cat((full, later)), whole)


@pytest.mark.slow
def test_positions_matter(model: Model) -> None:
    ids = prompt(LENGTH)[list(KEPT)]
    right, _ = run(model, ids, KEPT, [len(KEPT)])
    closed, _ = run(model, ids, None, [len(KEPT)])
    assert not torch.equal(right, closed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_agrees(tmp_path: Path) -> None:
    """The slow reference: another library, one pass over the kept tokens, with their positions."""
    transformers = pytest.importorskip("transformers")
    model = build(PLAIN["gqa"])
    save_model(tmp_path, model, random_tiny_tokenizer(), eos_token_ids=(1,))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = prompt(LENGTH)[list(KEPT)]
    hidden, _ = run(model, ids, KEPT, [200, len(KEPT) - 200])
    with torch.inference_mode():
        # Without a mask, positions with gaps would mean several texts in one row.
        mask = torch.ones(1, len(ids))
        positions = torch.tensor([KEPT])
        want = theirs(ids[None], attention_mask=mask, position_ids=positions).logits[0]
    torch.testing.assert_close(model.logits(hidden), want, atol=1e-4, rtol=1e-5)
