"""Prompt scores: against transformers' own attention weights, and wherever the prompt came from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.models import CausalLM, KVCache, ModelConfig, Segment
from pd_core.models.latent_attention import LatentAttention
from pd_core.models.latent_shape import LatentShape
from pd_core.models.layer import Layer
from pd_core.models.numerics_probe import probe
from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention, score_layer
from pd_core.models.rope import rotate

CONFIG = ModelConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=96,
    num_layers=6,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,
    max_context_tokens=2048,
)
LATENT = replace(
    CONFIG,
    family="deepseek_v2",
    num_kv_heads=8,
    head_dim=8,
    latent=LatentShape(kv_rank=24, nope_dim=12, value_dim=20),
)
PLAIN = {
    "mha": replace(CONFIG, num_kv_heads=8),
    "gqa": CONFIG,
    "qwen3": replace(CONFIG, family="qwen3"),
    "mla": LATENT,
}
SHARING = {
    "skip": replace(CONFIG, skip_v1=True),
    "yoco": replace(CONFIG, skip_v1=True, skip_v1_k_source=2),
}


def build(config: ModelConfig) -> CausalLM:
    model = CausalLM(config, probe())
    fill_weights(model, random_tiny_tokenizer())
    return model


def prompt(length: int) -> Tensor:
    return torch.randint(0, 1024, (length,), generator=torch.Generator().manual_seed(5))


def prefilled(model: CausalLM, ids: Tensor, chunk: int = 10_000) -> KVCache:
    cache = model.make_cache(len(ids))
    for first in range(0, len(ids), chunk):
        part = ids[first : first + chunk]
        model.forward(part, [Segment(cache, first, len(part))])
    return cache


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 5, SCORE_WINDOW, 70])
@pytest.mark.parametrize("name", PLAIN)
def test_transformers_weights_give_the_same(name: str, length: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = build(PLAIN[name])
    save_model(tmp_path, model, random_tiny_tokenizer(), eos_token_ids=(1,))
    ids = prompt(length)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        weights = theirs(ids[None], output_attentions=True).attentions[score_layer(6)][0]
    scores = model.prompt_scores(ids, prefilled(model, ids))
    expected = weights[:, -SCORE_WINDOW:].mean((0, 1))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)
    assert scores.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", SHARING)
def test_a_model_that_shares_is_scored_by_its_own_queries_and_keys(name: str) -> None:
    """From one pass without a cache: that layer's input, its matrices, and nothing else."""
    config = SHARING[name]
    model, ids = build(config), prompt(70)
    index = score_layer(config.num_layers, config.skip_v1_k_source)
    seen: list[Tensor] = []
    layer = model.layers[index]
    assert isinstance(layer, Layer)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    cache = prefilled(model, ids)
    handle.remove()
    w = layer.tensors()
    x = layer.input_norm(seen[0][: len(ids)])
    frequencies = config.rope_theta ** (-torch.arange(0, 16, 2) / 16)
    angles = torch.arange(len(ids))[:, None] * frequencies
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    q = rotate((x @ w["self_attn.q_proj.weight"].T).view(-1, 8, 16), cos, sin)
    k = rotate((x @ w["self_attn.k_proj.weight"].T).view(-1, 4, 16), cos, sin)
    products = torch.einsum("thd,shd->hts", q, k.repeat_interleave(2, dim=1)) / 4
    expected = mean_attention(products[:, -SCORE_WINDOW:])
    scores = model.prompt_scores(ids, cache)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_skip_latent_weights_mix_what_attention_mixes() -> None:
    model, ids = build(replace(LATENT, skip_v1=True)), prompt(70)
    cache = prefilled(model, ids)
    segment = Segment(cache, 0, len(ids))
    x, batch = model._enter(ids, [segment])
    index = score_layer(6)
    for layer in model.layers[:index]:
        x = layer(x, batch)
    scored = model.layers[index]
    assert isinstance(scored, Layer)
    attention = scored.attention
    assert isinstance(attention, LatentAttention)
    x = scored.input_norm(x)
    future = torch.ones(70, 70, dtype=torch.bool).triu(1)
    weights = attention.products(x, batch).masked_fill(future, float("-inf")).softmax(-1)
    latents = torch.cat((cache.keys[index][0, :70, :12], cache.keys[0][0, :70, 12:24]), dim=-1)
    mixed = attention._attend(*attention._queries(x, batch), segment)
    torch.testing.assert_close(
        torch.einsum("hts,sc->thc", weights, latents), mixed[:70], atol=1e-5, rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gqa", "skip", "mla"])
def test_scores_do_not_depend_on_chunks_and_change_nothing(name: str) -> None:
    model = build({**PLAIN, **SHARING}[name])
    ids = prompt(600)
    whole = prefilled(model, ids)
    before = [tensor.clone() for tensor in (*whole.keys, *whole.values)]
    scores = model.prompt_scores(ids, whole)
    assert torch.equal(scores, model.prompt_scores(ids, prefilled(model, ids, 37)))
    after = (*whole.keys, *whole.values)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    # What was computed after the prompt is none of its business.
    model.forward(prompt(9), [Segment(whole, 600, 9)])
    assert torch.equal(scores, model.prompt_scores(ids, whole))
