"""The local engine leaves out positions: the same tokens as one pass over what is kept."""

from collections.abc import AsyncIterator, Sequence

import pytest
import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import PromptTooLong
from pd_core.models import Segment
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.torch_engine import TorchLocalEngine
from tests.unit.device_client.engine.test_guessed_tokens import guessing

LENGTH = 12
KEPT = (*range(70), *range(96, 200), *range(250, 260), *range(290, 300))
SEEDED = SamplingParams(
    temperature=1.0, seed=5, ignore_eos=True, repetition_penalty=1.3, frequency_penalty=0.4
)


@pytest.fixture(scope="module", params=["float32", "integer"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model("random-tiny", numerics=request.param)


@pytest.fixture(params=[0, 3])
async def engine(
    request: pytest.FixtureRequest, loaded: LoadedModel
) -> AsyncIterator[TorchLocalEngine]:
    engine = guessing(loaded, request.param, kept_kv_bytes=64 << 20)
    yield engine
    await engine.close()


def prompt(seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for i in torch.randint(8, 40, (300,), generator=generator)]


def slowly(loaded: LoadedModel, ids: Sequence[int], sampling: SamplingParams) -> list[int]:
    """The answer by one pass over what is kept; sampling looks back at the full text."""
    model, made, fed = loaded.model, list[int](), [ids[i] for i in KEPT]
    cache, start, positions = model.make_cache(len(ids) + LENGTH), 0, KEPT
    history = History(list(ids), len(ids))
    while len(made) < LENGTH:
        segment = Segment(cache, start, len(fed), positions)
        with torch.inference_mode():
            hidden = model.forward(torch.tensor(fed), [segment])
            logits = model.logits(hidden[-1:])
        context = history.followed_by(made) if made else history
        made += sample(logits, [sampling], [len(made)], loaded.eos_token_ids, [context])
        start, fed = start + len(fed), made[-1:]
        positions = (len(ids) + len(made) - 1,)
    return made


async def quickly(
    engine: TorchLocalEngine, ids: Sequence[int], sampling: SamplingParams, sizes: Sequence[int]
) -> list[int]:
    """The answer by the engine: what is kept in passes, the first of them in full."""
    sequence = engine.open(sampling, ids)
    first, made = 0, list[int]()
    for size in sizes:
        at = KEPT[first : first + size]
        first += size
        last = first >= len(KEPT)
        positions = None if at == tuple(range(len(at))) else at
        made_or_none = await sequence.feed([ids[i] for i in at], 0 if last else None, positions)
        if last:
            assert made_or_none is not None
            made.append(made_or_none)
    while len(made) < LENGTH:
        token_id = await sequence.feed(made[-1:], len(made))
        assert token_id is not None
        made.append(token_id)
    sequence.close()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [SamplingParams(ignore_eos=True), SEEDED])
@pytest.mark.parametrize("sizes", [[len(KEPT)], [70, 50, 74], [64, 1, 65, 1, 63]])
async def test_the_answer_is_that_of_one_pass_over_what_is_kept(
    engine: TorchLocalEngine, loaded: LoadedModel, sampling: SamplingParams, sizes: list[int]
) -> None:
    ids = prompt()
    assert sum(sizes) == len(KEPT)
    assert await quickly(engine, ids, sampling, sizes) == slowly(loaded, ids, sampling)


async def test_only_what_stands_before_the_gap_is_kept_for_a_next_turn(
    engine: TorchLocalEngine,
) -> None:
    ids = prompt()
    await quickly(engine, ids, SEEDED, [64, len(KEPT) - 64])
    assert engine.cached_tokens([*ids, 1, 2, 3]) == 64
    assert engine.cached_tokens([ids[i] for i in KEPT] + [1]) == 64
    sequence = engine.open(SEEDED, ids)
    token_id = await sequence.feed(ids[64:], 0)
    fresh = TorchLocalEngine(engine._loaded)
    assert token_id == await fresh.open(SEEDED, ids).feed(ids, 0)
    await fresh.close()


async def test_positions_beyond_the_context_are_refused(engine: TorchLocalEngine) -> None:
    limit = engine.card.max_context_tokens
    ids = [9] * (limit + 1)
    sequence = engine.open(SEEDED, ids)
    with pytest.raises(PromptTooLong):
        await sequence.feed([9, 9], 0, [limit - 1, limit])
