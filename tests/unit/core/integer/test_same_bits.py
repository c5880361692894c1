"""All ways to compute integer numerics give the bits of the numpy reference."""

import hashlib
import logging
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pd_core.errors import EngineError
from pd_core.integer import kernel_library
from pd_core.integer.integer_lm import IntegerLM
from pd_core.integer.native_passes import MOST_ROWS
from pd_core.models import ModelConfig, Segment
from pd_core.models.kv_block import KVBlock
from tests.integer_models import SHAPES, WAYS, by_reference, integer_lm, way, weights_of

TOKENS = torch.randint(0, 100, (70,), generator=torch.Generator().manual_seed(3))


def run(model: IntegerLM, chunks: list[int], token_ids: torch.Tensor = TOKENS) -> torch.Tensor:
    """Return the hidden rows of tokens fed in chunks."""
    cache = model.make_cache(len(token_ids))
    rows, start = [], 0
    for count in chunks:
        part = token_ids[start : start + count]
        rows.append(model.forward(part, [Segment(cache, start, count)]))
        start += count
    assert start == len(token_ids)
    return torch.cat(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_gives_the_reference_s_bits(
    name: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SHAPES[shape]
    hidden, logits = by_reference(config, TOKENS.tolist())
    for threads in (1, 2):
        with way(monkeypatch, name, threads):
            model = integer_lm(config)
            for chunks in ([70], [1, 1, 1, 30, 37], [16, 17, 36, 1]):
                rows = run(model, chunks)
                assert torch.equal(rows[:, : config.hidden_size], hidden)
                assert torch.equal(model.logits(rows), logits)


@pytest.mark.parametrize("name", WAYS)
def test_the_bits_are_those_of_every_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of this digest is a change of the definition: give it another name."""
    with way(monkeypatch, name):
        model = integer_lm(SHAPES["odd sizes, norms, shared keys and values"])
        logits = model.logits(run(model, [70]))
    digest = hashlib.sha256(logits.contiguous().numpy().tobytes()).hexdigest()
    assert digest == "ba1e782c8ffffee0e0b7f54b1ee763aeb2c00786b0cb508ae63a648f1b9a156d"


@pytest.mark.parametrize("name", ["off", "avx512"])
def test_a_batch_s_rows_are_those_of_each_sequence_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    with way(monkeypatch, name, threads=2):
        model = integer_lm(SHAPES["grouped"])
        lengths = [1, 3, 40, MOST_ROWS + 9, 5]
        prompts = [torch.randint(0, 100, (n,), generator=generator) for n in lengths]
        caches = [model.make_cache(1) for _ in prompts]
        batch = [Segment(c, 0, len(p)) for c, p in zip(caches, prompts, strict=True)]
        together = model.forward(torch.cat(prompts), batch)
        alone = torch.cat([run(model, [len(p)], p) for p in prompts])
        assert torch.equal(together, alone)
        again = [Segment(c, len(p), 1) for c, p in zip(caches, prompts, strict=True)]
        decoded = model.forward(torch.arange(5), again)
        for i, prompt in enumerate(prompts):
            whole = torch.cat((prompt, torch.tensor([i])))
            assert torch.equal(decoded[i], run(model, [len(whole)], whole)[-1])


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    heads = data.draw(st.integers(1, 3))
    config = ModelConfig(
        vocab_size=data.draw(st.integers(2, 90)),
        hidden_size=data.draw(st.integers(1, 70)),
        intermediate_size=data.draw(st.integers(1, 70)),
        num_layers=2,
        num_heads=heads * data.draw(st.integers(1, 5)),
        num_kv_heads=heads,
        head_dim=16 * data.draw(st.integers(1, 5)),
        max_context_tokens=64,
        attention_bias=data.draw(st.booleans()),
        mlp_bias=data.draw(st.booleans()),
    )
    seed = data.draw(st.integers(0, 9))
    count = data.draw(st.integers(1, 24))
    token_ids = torch.arange(count) % config.vocab_size
    hidden, logits = by_reference(config, token_ids.tolist(), seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("off", "portable", "avx2", "avx512"):
            try:
                with way(monkeypatch, name):
                    model = integer_lm(config, seed)
                    first = data.draw(st.integers(0, count - 1))
                    rows = run(model, [first, count - first] if first else [count], token_ids)
                    assert torch.equal(rows[:, : config.hidden_size], hidden), name
                    assert torch.equal(model.logits(rows), logits), name
            except pytest.skip.Exception:
                continue


@pytest.mark.parametrize("name", ["off", "avx512"])
def test_a_copied_prefix_is_what_was_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with way(monkeypatch, name):
        model = integer_lm(SHAPES["biases, tied, shared values"])
        expected = run(model, [70])
        source = model.make_cache(64)
        model.forward(TOKENS[:37], [Segment(source, 0, 37)])
        copy = model.make_cache(64)
        copy.copy_prefix(source, 37)
        rest = model.forward(TOKENS[37:], [Segment(copy, 37, 33)])
        assert torch.equal(rest, expected[37:])
        blocks = [KVBlock(source, first, 16) for first in (0, 16)]
        other = model.make_cache(1000)
        for i, block in enumerate(blocks):
            block.copy_into(other, 16 * i)
        rest = model.forward(TOKENS[32:], [Segment(other, 32, 38)])
        assert torch.equal(rest, expected[32:])


def test_a_cache_that_grows_keeps_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with way(monkeypatch, "portable"):
        model = integer_lm(SHAPES["grouped"])
        expected = run(model, [70])
        cache = model.make_cache(1)
        model.forward(TOKENS[:40], [Segment(cache, 0, 40)])
        before = cache.allocated_bytes
        cache.reserve(513)
        assert cache.allocated_bytes == 2 * before
        rest = model.forward(TOKENS[40:], [Segment(cache, 40, 30)])
        assert torch.equal(rest, expected[40:])


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_prompt_scores_are_the_same_each_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = []
    for one in ("off", name):
        with way(monkeypatch, one):
            model = integer_lm(SHAPES["grouped"])
            cache = model.make_cache(70)
            model.forward(TOKENS, [Segment(cache, 0, 70)])
            scores.append(model.prompt_scores(TOKENS, cache))
    torch.testing.assert_close(scores[0], scores[1])
    assert float(scores[0].sum()) == pytest.approx(1.0)


def test_a_number_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("off", "portable"):
        with way(monkeypatch, name):
            config = SHAPES["grouped"]
            tensors = weights_of(config)
            tensors["model.layers.1.post_attention_layernorm.weight"].fill_(3e38)
            model = IntegerLM(config, tensors.__getitem__, device=torch.device("cpu"))
            with pytest.raises(EngineError, match="not finite"):
                run(model, [70])


def test_a_cache_too_small_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with way(monkeypatch, "portable"):
        model = integer_lm(SHAPES["grouped"])
        with pytest.raises(EngineError, match="reserve more"):
            model.forward(
                torch.zeros(513, dtype=torch.long), [Segment(model.make_cache(1), 0, 513)]
            )


@pytest.mark.parametrize("token_id", [-1, 128, 1 << 40])
def test_a_token_id_beyond_the_vocabulary_is_an_error(
    token_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with way(monkeypatch, "portable"):
        model = integer_lm(SHAPES["biases, tied, shared values"])
        segment = Segment(model.make_cache(1), 0, 1)
        with pytest.raises(EngineError, match="vocabulary"):
            model.forward(torch.tensor([token_id]), [segment])


def test_the_log_says_which_kernels_compute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with way(monkeypatch, "portable"), caplog.at_level(logging.INFO):
        integer_lm(SHAPES["grouped"])
    assert "the native kernels compute by portable" in caplog.text


def test_every_way_can_be_asked_for_by_name() -> None:
    """As `pd-bench handoffs --device-kernel` does."""
    assert {*WAYS, "auto"} == set(kernel_library.KERNELS)


def test_an_unknown_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with way(monkeypatch, "portable"):
        for name, shown in (("mmx", "'mmx'"), ("\udcff", r"'\\udcff'")):  # a byte that is no text
            monkeypatch.setenv("PD_KERNEL", name)
            with pytest.raises(EngineError, match=f"{shown}, which this processor"):
                integer_lm(SHAPES["grouped"])


@pytest.mark.slow
def test_plain_c_is_made_into_vectors_by_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(512, 512, 1024, 2, 8, 8, 64, 2048)

    def seconds(name: str) -> float:
        with way(monkeypatch, name):
            model = integer_lm(config)
            run(model, [64], TOKENS[:64])
            took = []
            for _ in range(5):
                begin = time.process_time()
                run(model, [64], TOKENS[:64])
                took.append(time.process_time() - begin)
        return min(took)

    # 2 to 4 times; 30 times when the compiler made no vectors of it.
    assert seconds("portable") < 12 * seconds("avx2")
