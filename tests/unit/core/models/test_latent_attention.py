"""MLA and SkipV1-MLA: against transformers, a slow reference, and bit by bit."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pd_core.checkpoints.hf_config import read_config, write_config
from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.errors import ModelError
from pd_core.identity.numerics import Numerics
from pd_core.models import CausalLM, ModelConfig, Segment
from pd_core.models.latent_shape import LatentShape
from pd_core.models.linear import add_linear, linear
from pd_core.models.numerics_probe import probe

CONFIG = ModelConfig(
    vocab_size=1024,
    hidden_size=72,
    intermediate_size=136,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    max_context_tokens=2048,
    rope_theta=50000.0,
    family="deepseek_v2",
    latent=LatentShape(kv_rank=24, nope_dim=12, value_dim=20),
)
SKIP = replace(CONFIG, skip_v1=True)
CASES = {
    "mla": CONFIG,
    "mla-biased": replace(CONFIG, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "skip": SKIP,
    "skip-biased": replace(SKIP, attention_bias=True, num_heads=6, num_kv_heads=6, num_layers=4),
    "one-head": replace(SKIP, num_heads=1, num_kv_heads=1),
    "skip-three-quarters": replace(SKIP, skip_v1_own=18),
    "skip-little": replace(SKIP, skip_v1_own=7, attention_bias=True),
}


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(config: ModelConfig) -> CausalLM:
    model = CausalLM(config, probe())
    fill_weights(model, random_tiny_tokenizer())
    for name, tensor in model.tensors().items():
        if name.endswith("layernorm.weight"):
            tensor.copy_(torch.linspace(0.5, 1.5, tensor.numel()))
    return model


def prompt(length: int, seed: int = 3) -> Tensor:
    return torch.randint(0, 1024, (length,), generator=torch.Generator().manual_seed(seed))


def run(model: CausalLM, ids: Tensor, chunks: list[int]) -> Tensor:
    cache, start, hidden = model.make_cache(len(ids)), 0, []
    for size in chunks:
        hidden.append(model.forward(ids[start : start + size], [Segment(cache, start, size)]))
        start += size
    assert start == len(ids)
    return model.logits(torch.cat(hidden))


def reference_logits(config: ModelConfig, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """One pass without a cache, in float64, keys and values of each head written out."""
    assert config.latent is not None
    w = {name: tensor.double() for name, tensor in weights.items()}
    rank, nope, size = config.latent.kv_rank, config.latent.nope_dim, config.latent.value_dim
    n, dim = len(ids), config.head_dim

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        y = x @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def rope(x: Tensor) -> Tensor:
        out = x.clone()
        for i in range(dim // 2):
            angle = torch.arange(n).double() * config.rope_theta ** (-2 * i / dim)
            a, b = x[:, 2 * i], x[:, 2 * i + 1]
            out[:, 2 * i] = a * angle.cos() - b * angle.sin()
            out[:, 2 * i + 1] = b * angle.cos() + a * angle.sin()
        return out

    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    x = w["model.embed_tokens.weight"][ids]
    first = torch.empty(0)
    for layer in range(config.num_layers):
        p = f"model.layers.{layer}"
        h = norm(x, f"{p}.input_layernorm")
        q = linear(h, f"{p}.self_attn.q_proj").view(n, config.num_heads, nope + dim)
        made = linear(h, f"{p}.self_attn.kv_a_proj_with_mqa")
        latent = norm(made[:, :-dim], f"{p}.self_attn.kv_a_layernorm")
        if layer == 0:
            first = latent
        elif config.skip_v1:
            own = config.skip_v1_own or rank // 2
            assert latent.shape[1] == own
            latent = torch.cat((latent, first[:, own:]), dim=1)
        both = linear(latent, f"{p}.self_attn.kv_b_proj").view(n, config.num_heads, nope + size)
        heads = []
        for i in range(config.num_heads):
            query = torch.cat((q[:, i, :nope], rope(q[:, i, nope:])), dim=1)
            key = torch.cat((both[:, i, :nope], rope(made[:, -dim:])), dim=1)
            scores = query @ key.T / math.sqrt(nope + dim)
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ both[:, i, nope:])
        x = x + linear(torch.cat(heads, -1), f"{p}.self_attn.o_proj")
        h = norm(x, f"{p}.post_attention_layernorm")
        gate, up = linear(h, f"{p}.mlp.gate_proj"), linear(h, f"{p}.mlp.up_proj")
        x = x + linear(gate * gate.sigmoid() * up, f"{p}.mlp.down_proj")
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    return linear(norm(x, "model.norm"), head)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_cached_equals_the_slow_reference(name: str) -> None:
    model, ids = build(CASES[name]), prompt(600)
    want = reference_logits(CASES[name], model.tensors(), ids)
    got = run(model, ids, [600]).double()
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mla", "mla-biased"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_equals_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, ids = build(CASES[name]), prompt(600)
    save_model(tmp_path, model, random_tiny_tokenizer(), eos_token_ids=(1,))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        want = theirs(ids[None]).logits[0]
    torch.testing.assert_close(run(model, ids, [600]), want, atol=1e-4, rtol=1e-5)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_chunks_equal_one_pass(name: str, threads: int) -> None:
    model, ids = build(CASES[name]), prompt(700)
    whole = run(model, ids, [700])
    torch.set_num_threads(threads)
    assert torch.equal(run(model, ids, [37] * 18 + [34]), whole)
    assert torch.equal(run(model, ids, [128] * 5 + [60]), whole)
    assert torch.equal(run(model, ids, [490] + [1] * 40 + [3] * 10 + [140]), whole)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mla", "skip"])
def test_ragged_batches_equal_each_sequence_alone(name: str, threads: int) -> None:
    model = build(CASES[name])
    prompts = [prompt(n, seed=n) for n in (560, 530, 41, 5)]
    alone = [run(model, p, [len(p)]) for p in prompts]
    torch.set_num_threads(threads)
    caches = [model.make_cache(len(p)) for p in prompts]
    done, step = [0] * 4, 0
    while any(d < len(p) for d, p in zip(done, prompts, strict=True)):
        wanted = [(100, 1, 37, 1)[(i + step) % 4] for i in range(4)]
        sizes = [min(w, len(p) - d) for w, p, d in zip(wanted, prompts, done, strict=True)]
        order = [i for i in ((0, 1, 2, 3), (3, 1, 0, 2))[step % 2] if sizes[i]]
        ids = torch.cat([prompts[i][done[i] : done[i] + sizes[i]] for i in order])
        hidden = model.forward(ids, [Segment(caches[i], done[i], sizes[i]) for i in order])
        logits = torch.split(model.logits(hidden), [sizes[i] for i in order])
        for i, rows in zip(order, logits, strict=True):
            assert torch.equal(rows, alone[i][done[i] : done[i] + sizes[i]]), (step, i)
            done[i] += sizes[i]
        step += 1


def test_a_skip_model_whose_latents_are_equal_is_the_plain_model() -> None:
    """Two layers that see the same input, and a norm that the halves share: weights by hand."""
    rank = 24
    skip, plain = build(replace(SKIP, num_layers=2)), build(replace(CONFIG, num_layers=2))
    ours, theirs = skip.tensors(), plain.tensors()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        ours[f"model.layers.0.{name}.weight"].zero_()
    ours["model.layers.1.input_layernorm.weight"].copy_(
        ours["model.layers.0.input_layernorm.weight"]
    )
    first = ours["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"]
    own = ours["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"]
    # Equal halves: the norm over the whole is then the norm over each half.
    first[rank // 2 : rank] = first[: rank // 2]
    own[: rank // 2] = first[: rank // 2]
    norm = ours["model.layers.0.self_attn.kv_a_layernorm.weight"]
    ours["model.layers.1.self_attn.kv_a_layernorm.weight"].copy_(norm[: rank // 2])
    for name, tensor in ours.items():
        if theirs[name].shape == tensor.shape:
            theirs[name].copy_(tensor)
    theirs["model.layers.1.self_attn.kv_a_proj_with_mqa.weight"].copy_(
        torch.cat((first[:rank], own[rank // 2 :]))
    )
    theirs["model.layers.1.self_attn.kv_a_layernorm.weight"].copy_(norm)
    ids = prompt(200)
    got, want = run(skip, ids, [200]), run(plain, ids, [200])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("num_layers", [2, 5])
def test_the_cache_holds_only_what_is_needed(num_layers: int) -> None:
    plain = build(replace(CONFIG, num_layers=num_layers)).make_cache(600)
    config = replace(SKIP, num_layers=num_layers)
    skip = build(config).make_cache(600)
    assert plain.allocated_bytes == num_layers * (24 + 8) * 1024 * 4
    assert skip.allocated_bytes == ((24 + 8) + (num_layers - 1) * (12 + 8)) * 1024 * 4
    assert skip.allocated_bytes == plain.allocated_bytes * (1 - config.kv_saving())
    more = replace(config, skip_v1_own=7)
    assert build(more).make_cache(600).allocated_bytes == plain.allocated_bytes * (
        1 - more.kv_saving()
    )
    assert more.kv_saving() == Fraction((num_layers - 1) * 17, num_layers * 32)
    paper = replace(SKIP, num_layers=24, head_dim=32, latent=LatentShape(256, 64, 64))
    assert paper.kv_saving() == Fraction(13824 - 7936, 13824)


def test_no_step_copies_the_source_layers_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the products read of the cache lies inside the cache's own storages."""
    model, ids = build(SKIP), prompt(40)
    cache = model.make_cache(40)
    storages = {t.untyped_storage().data_ptr() for t in cache.keys}
    seen: list[int] = []

    def spied(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def spy(*tensors: Tensor | Numerics | None) -> Tensor:
            weight = tensors[-2] if product is add_linear else tensors[1]
            assert isinstance(weight, Tensor)
            if 512 in weight.shape:  # cached rows: no weight of this model has 512 of anything
                seen.append(weight.untyped_storage().data_ptr())
            return product(*tensors)

        return spy

    monkeypatch.setattr("pd_core.models.latent_attention.linear", spied(linear))
    monkeypatch.setattr("pd_core.models.latent_attention.add_linear", spied(add_linear))
    model.forward(ids, [Segment(cache, 0, 40)])
    assert len(seen) == 2 + 4 + 4
    assert set(seen) == storages


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_model_survives_the_disk(name: str, tmp_path: Path) -> None:
    config = CASES[name]
    model = build(config)
    save_model(tmp_path / "m", model, random_tiny_tokenizer(), eos_token_ids=(1,))
    loaded = load_model(str(tmp_path / "m"))
    assert loaded.model.config == config
    assert torch.equal(run(loaded.float_model, prompt(50), [50]), run(model, prompt(50), [50]))
    report = inspect_model(tmp_path / "m")
    assert report.architecture == ("SkipV1" if config.skip_v1 else "") + "DeepseekV2ForCausalLM"
    assert report.kv_bytes_per_token == report.kv_bytes_per_token_by_formula


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_k_dense_replace": 2}, "mixture of experts"),
        ({"q_lora_rank": 64}, "q_lora_rank"),
        ({"num_key_value_heads": 2}, "as many KV heads"),
        ({"kv_lora_rank": 23}, "half of the elements of the latent, and 23 is not even"),
        ({"skip_v1_own": 24}, "24 of 24 elements of the latent; it must be from 1 to 23"),
        ({"kv_lora_rank": 0}, "kv_rank is 0"),
        ({"skip_v1_k_source": 0}, "means nothing"),
        ({"qk_rope_head_dim": 7}, "even"),
        ({"rope_scaling": {"type": "yarn", "factor": 40}}, "'yarn'"),
    ],
)
def test_what_is_not_supported_is_refused(changes: dict[str, Any], message: str) -> None:
    config = json.loads(json.dumps(write_config(SKIP))) | changes
    with pytest.raises(ModelError, match=message):
        read_config(config)
    with pytest.raises(ModelError, match="do not fit together"):
        replace(CONFIG, family="llama")
