"""One pass, chunks, single steps and ragged batches give the same bits."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.identity.numerics import Numerics
from pd_core.models import CausalLM, KVCache, ModelConfig, Segment
from pd_core.models.linear import linear, pack, packed_linear
from pd_core.models.numerics_probe import probe
from pd_core.models.rope_scaling import RopeScaling
from pd_core.store.model_names import DEFAULT_MODEL

LENGTH = 700  # past one block of 512 keys

CONFIG = ModelConfig(
    vocab_size=1024,
    hidden_size=72,  # no multiple of the vector width, like the inner size
    intermediate_size=136,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_context_tokens=4096,
)
LLAMA3 = RopeScaling("llama3", 8.0, original_context_tokens=256)
CONFIGS = {
    "gqa": CONFIG,
    "gqa-skip": replace(CONFIG, skip_v1=True),
    "mha-skip": replace(CONFIG, skip_v1=True, num_kv_heads=4),
    "group-of-7": replace(CONFIG, num_heads=14, skip_v1=True, head_dim=32),
    "biased": replace(CONFIG, attention_bias=True, mlp_bias=True),
    "qwen2": replace(CONFIG, family="qwen2"),
    "qwen3-skip": replace(CONFIG, family="qwen3", skip_v1=True, rope_scaling=LLAMA3),
    "qwen3-yoco": replace(CONFIG, family="qwen3", num_layers=4, skip_v1=True, skip_v1_k_source=1),
    "two-of-three": replace(CONFIG, num_heads=9, num_kv_heads=3, skip_v1=True, skip_v1_own=2),
    "one-of-three": replace(CONFIG, num_heads=3, num_kv_heads=3, skip_v1=True, skip_v1_own=1),
    "five-of-eight-yoco": replace(
        CONFIG,
        num_heads=8,
        num_kv_heads=8,
        num_layers=4,
        skip_v1=True,
        skip_v1_k_source=1,
        skip_v1_own=5,
    ),
    "yoco-two-heads": replace(CONFIG, num_heads=2, num_layers=2, skip_v1=True, skip_v1_k_source=0),
}


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["1-thread", "2-threads"])
def _threads(request: pytest.FixtureRequest, _one_thread: None) -> None:
    torch.set_num_threads(request.param)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(config: ModelConfig, numerics: Numerics | None = None) -> CausalLM:
    model = CausalLM(config, numerics or probe())
    fill_weights(model, random_tiny_tokenizer())
    return model


def prompt(length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 1024, (length,), generator=torch.Generator().manual_seed(seed))


def run(
    model: CausalLM, ids: torch.Tensor, chunk: int, cache: KVCache | None = None, start: int = 0
) -> torch.Tensor:
    """Logits of positions start.. of ids, in chunks."""
    cache = cache or model.make_cache(len(ids))
    hidden = [
        model.forward(part, [Segment(cache, start + i * chunk, len(part))])
        for i, part in enumerate(torch.split(ids[start:], chunk))
    ]
    return model.logits(torch.cat(hidden))


@pytest.mark.slow
def test_the_machine_is_reproducible() -> None:
    assert probe().reproducible, "the strict setting of MKL was not in force"


def check_chunks(model: CausalLM, ids: torch.Tensor, whole: torch.Tensor, chunk: int) -> None:
    """Compare chunks with one pass; small ones from position 470, across the block of 512 keys."""
    cache, start = model.make_cache(len(ids)), 0 if chunk > 8 else 470
    if start:
        model.forward(ids[:start], [Segment(cache, 0, start)])
        ids = ids[: start + 80]
    assert torch.equal(run(model, ids, chunk, cache, start), whole[start : len(ids)]), chunk


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3, 37, 100, 128])
@pytest.mark.usefixtures("_threads")
def test_chunks_equal_one_pass(tiny: LoadedModel, chunk: int) -> None:
    ids = prompt(1100)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = run(tiny.float_model, ids, len(ids))
    torch.set_num_threads(before)
    check_chunks(tiny.float_model, ids, whole, chunk)


@pytest.mark.slow
def test_a_whole_prompt_in_single_steps_equals_one_pass(tiny: LoadedModel) -> None:
    assert torch.equal(run(tiny.float_model, prompt(), 1), run(tiny.float_model, prompt(), LENGTH))


@pytest.mark.slow
@pytest.mark.usefixtures("_threads")
def test_chunks_of_the_shipped_model_equal_one_pass() -> None:
    model, ids = load_model(DEFAULT_MODEL).float_model, prompt()
    whole = run(model, ids, LENGTH)
    for chunk in (1, 2, 3, 37, 128, 256):
        check_chunks(model, ids, whole, chunk)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("_threads")
def test_chunks_equal_one_pass_in_every_shape(name: str) -> None:
    model = build(CONFIGS[name])
    whole = run(model, prompt(), LENGTH)
    for chunk in (1, 37, 128):
        check_chunks(model, prompt(), whole, chunk)


@pytest.mark.usefixtures("_threads")
def test_catch_up_equals_one_pass(tiny: LoadedModel) -> None:
    """Chunks, then a few tokens in one pass, then single steps: a device that takes over."""
    ids, model = prompt(), tiny.float_model
    cache, start, hidden = model.make_cache(LENGTH), 0, []
    for size in (128, 128, 128, 116, 14, 1, 1, 30, 2, 1, 3, 148):
        part = ids[start : start + size]
        hidden.append(model.forward(part, [Segment(cache, start, size)]))
        start += size
    assert start == LENGTH
    assert torch.equal(model.logits(torch.cat(hidden)), run(model, ids, LENGTH))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random-tiny", "qwen3-yoco", "two-of-three"])
@pytest.mark.usefixtures("_threads")
def test_ragged_batches_equal_each_sequence_alone(tiny: LoadedModel, name: str) -> None:
    model = tiny.float_model if name == "random-tiny" else build(CONFIGS[name])
    prompts = [prompt(n, seed=n) for n in (LENGTH, 530, 41, 5)]
    alone = [run(model, p, len(p)) for p in prompts]
    caches = [model.make_cache(LENGTH) for _ in prompts]
    done = [0] * len(prompts)
    got: list[list[torch.Tensor]] = [[] for _ in prompts]
    step = 0
    while any(d < len(p) for d, p in zip(done, prompts, strict=True)):
        # Prefills of several lengths share a batch with single steps, in changing order.
        wanted = [(100, 1, 37, 1)[(i + step) % 4] for i in range(4)]
        sizes = [min(w, len(p) - d) for w, p, d in zip(wanted, prompts, done, strict=True)]
        order = [i for i in ((0, 1, 2, 3), (3, 1, 0, 2))[step % 2] if sizes[i]]
        ids = torch.cat([prompts[i][done[i] : done[i] + sizes[i]] for i in order])
        hidden = model.forward(ids, [Segment(caches[i], done[i], sizes[i]) for i in order])
        logits = torch.split(model.logits(hidden), [sizes[i] for i in order])
        for i, rows in zip(order, logits, strict=True):
            got[i].append(rows)
            done[i] += sizes[i]
        step += 1
    for i, rows_of in enumerate(got):
        assert torch.equal(torch.cat(rows_of), alone[i]), i


def test_logits_of_single_rows_equal_those_of_many(tiny: LoadedModel) -> None:
    hidden = tiny.float_model.forward(
        prompt(), [Segment(tiny.float_model.make_cache(LENGTH), 0, LENGTH)]
    )
    whole = tiny.float_model.logits(hidden)
    for i in (0, 1, 350, LENGTH - 1):
        assert torch.equal(tiny.float_model.logits(hidden[i : i + 1]), whole[i : i + 1])


def test_a_used_and_grown_cache_changes_nothing(tiny: LoadedModel) -> None:
    """Stale tokens past the present position (a rolled back guess) are never seen."""
    model, ids = tiny.float_model, prompt(1300)
    cache = model.make_cache(1300)
    run(model, prompt(1300, seed=9), 400, cache)
    assert torch.equal(run(model, ids, 1300, cache), run(model, ids, 1300))
    small = model.make_cache(100)
    model.forward(ids[:100], [Segment(small, 0, 100)])
    small.reserve(1300)
    assert small.capacity_tokens == 1536
    assert torch.equal(run(model, ids, 300, small, start=100), run(model, ids, 1300)[100:])


@pytest.mark.parametrize(("min_rows", "tile_rows"), [(4, 0), (1, 16)])
def test_plain_weights_are_reproducible_too(min_rows: int, tile_rows: int) -> None:
    """The ways for machines that do not pack: padded, or where that does not help in tiles."""
    plain = replace(probe(), packed=False, min_rows=min_rows, tile_rows=tile_rows)
    model = build(replace(CONFIG, skip_v1=True), plain)
    whole = run(model, prompt(), LENGTH)
    check_chunks(model, prompt(), whole, 37)
    check_chunks(model, prompt(), whole, 1)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [10, 20, 24, 40])
def test_narrow_linear_layers_are_reproducible(columns: int) -> None:
    """Fewer than a dozen columns for each thread, where MKL has code of its own."""
    numbers = torch.Generator().manual_seed(columns)
    x, weight = (torch.randn(n, 64, generator=numbers) for n in (200, columns))
    whole = linear(x, weight, None, probe())
    packed = pack(weight)
    whole_packed = packed_linear(x, packed, None, probe())
    torch.testing.assert_close(whole_packed, whole)
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        for rows in (1, 4, 12, 17, 33, 200):
            assert torch.equal(linear(x[:rows], weight, None, probe()), whole[:rows])
            part = packed_linear(x[:rows], packed, None, probe())
            assert torch.equal(part, whole_packed[:rows])


@pytest.mark.slow
def test_fast_mode_is_close(tiny: LoadedModel) -> None:
    fast = load_model("random-tiny", fast=True)
    for chunk in (LENGTH, 100, 7):
        torch.testing.assert_close(
            run(fast.float_model, prompt(), chunk),
            run(tiny.float_model, prompt(), LENGTH),
            atol=1e-4,
            rtol=0,
        )
    ids = {tiny.fingerprints.numerics_id, fast.fingerprints.numerics_id}
    ids.add(load_model("random-tiny", fast=True).fingerprints.numerics_id)
    assert len(ids) == 3, "two fast sides must never look equal"
    assert load_model("random-tiny").fingerprints == tiny.fingerprints
