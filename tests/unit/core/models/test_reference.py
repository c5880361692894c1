"""The fast path against slow, plain ones: written out here, and transformers' own."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pd_core.checkpoints.hf_config import read_config, write_config
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.models import CausalLM, KVCache, ModelConfig, Segment
from pd_core.models.grouped_attention import GroupedAttention
from pd_core.models.layer import Layer
from pd_core.models.numerics_probe import probe
from pd_core.models.rope_scaling import RopeScaling

CONFIG = ModelConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=96,
    num_layers=3,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,
    max_context_tokens=2048,
    rope_theta=50000.0,
)

# Some of this model's eight wavelengths are below, between and above the two limits.
LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, original_context_tokens=256)
YOCO = replace(CONFIG, num_layers=4, skip_v1=True, skip_v1_k_source=1)
# SmolLM2-135M's heads: nine for queries, three for keys and values.
THREE = replace(CONFIG, num_heads=9, num_kv_heads=3, skip_v1=True, skip_v1_own=2)


def build(config: ModelConfig) -> CausalLM:
    model = CausalLM(config, probe())
    fill_weights(model, random_tiny_tokenizer())
    for name, tensor in model.tensors().items():
        if name.endswith(
            ("layernorm.weight", "_norm.weight")
        ):  # not ones, so that a forgotten norm is seen
            tensor.copy_(torch.linspace(0.5, 1.5, tensor.numel()))
    return model


def prompt(length: int) -> Tensor:
    return torch.randint(0, 1024, (length,), generator=torch.Generator().manual_seed(3))


def fast_logits(model: CausalLM, ids: Tensor) -> Tensor:
    hidden = model.forward(ids, [Segment(model.make_cache(len(ids)), 0, len(ids))])
    return model.logits(hidden)


def scaled(frequency: float, scaling: RopeScaling | None) -> float:
    """One frequency at a time, by cases over the wavelength (Llama 3.1)."""
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    turns = scaling.original_context_tokens * frequency / (2 * math.pi)
    if turns > scaling.high_freq_factor:
        return frequency
    if turns < scaling.low_freq_factor:
        return frequency / scaling.factor
    width = scaling.high_freq_factor - scaling.low_freq_factor
    share = (turns - scaling.low_freq_factor) / width
    return frequency * (share + (1 - share) / scaling.factor)


def reference_logits(config: ModelConfig, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """One pass without a cache, in float64, each head on its own."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * w[name]

    def linear(x: Tensor, name: str) -> Tensor:
        y = x @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    def rope(x: Tensor) -> Tensor:
        half = config.head_dim // 2
        out = x.clone()
        for i in range(half):
            frequency = scaled(config.rope_theta ** (-2 * i / config.head_dim), config.rope_scaling)
            angle = torch.arange(len(x)).double() * frequency
            a, b = x[:, i], x[:, i + half]
            out[:, i] = a * angle.cos() - b * angle.sin()
            out[:, i + half] = b * angle.cos() + a * angle.sin()
        return out

    d, n = config.head_dim, len(ids)
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    x = w["model.embed_tokens.weight"][ids]
    first_values: list[Tensor] = []
    keys: list[Tensor] = []
    for layer in range(config.num_layers):
        p = f"model.layers.{layer}"
        h = norm(x, f"{p}.input_layernorm.weight")
        shares_keys = config.skip_v1_k_source is not None and layer >= config.num_layers // 2
        q, v = (list(torch.split(linear(h, f"{p}.self_attn.{c}_proj"), d, -1)) for c in "qv")
        if not shares_keys:
            keys = list(torch.split(linear(h, f"{p}.self_attn.k_proj"), d, -1))
            if config.family == "qwen3":
                keys = [norm(k, f"{p}.self_attn.k_norm.weight") for k in keys]
            keys = [rope(k) for k in keys]
        if config.family == "qwen3":
            q = [norm(head, f"{p}.self_attn.q_norm.weight") for head in q]
        values = v
        if layer == 0:
            first_values = values
        elif config.skip_v1:
            assert len(values) == (config.skip_v1_own or config.num_kv_heads // 2)
            values += first_values[len(values) :]
        heads = []
        for i in range(config.num_heads):
            kv = i // config.group
            scores = rope(q[i]) @ keys[kv].T / math.sqrt(d)
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ values[kv])
        x = x + linear(torch.cat(heads, -1), f"{p}.self_attn.o_proj")
        h = norm(x, f"{p}.post_attention_layernorm.weight")
        gate, up = linear(h, f"{p}.mlp.gate_proj"), linear(h, f"{p}.mlp.up_proj")
        x = x + linear(gate * gate.sigmoid() * up, f"{p}.mlp.down_proj")
    x = norm(x, "model.norm.weight")
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    return linear(x, head)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, skip_v1=True),
        replace(CONFIG, skip_v1=True, num_kv_heads=8),
        replace(CONFIG, skip_v1=True, tie_word_embeddings=True, head_dim=8),
        replace(CONFIG, skip_v1=True, attention_bias=True, mlp_bias=True),
        replace(CONFIG, skip_v1=True, family="qwen2"),
        replace(CONFIG, skip_v1=True, family="qwen3", rope_scaling=LLAMA3),
        replace(CONFIG, rope_scaling=RopeScaling("linear", 3.0)),
        YOCO,
        replace(YOCO, num_layers=2, skip_v1_k_source=0, num_kv_heads=8, attention_bias=True),
        replace(YOCO, family="qwen2"),
        replace(YOCO, family="qwen3"),
        THREE,
        replace(THREE, skip_v1_own=1, attention_bias=True),
        replace(CONFIG, skip_v1=True, skip_v1_own=3, family="qwen2"),
        replace(CONFIG, skip_v1=True, num_kv_heads=8, skip_v1_own=2, family="qwen3"),
        replace(YOCO, num_heads=6, num_kv_heads=3, skip_v1_own=1, family="qwen3"),
    ],
    ids=[
        "gqa",
        "skip-gqa",
        "skip-mha",
        "skip-tied",
        "skip-biased",
        "skip-qwen2",
        "skip-qwen3-llama3",
        "linear",
        "yoco",
        "yoco-mha-biased",
        "yoco-qwen2",
        "yoco-qwen3",
        "two-of-three",
        "one-of-three-biased",
        "three-of-four-qwen2",
        "two-of-eight-qwen3",
        "yoco-one-of-three-qwen3",
    ],
)
def test_cached_equals_the_slow_reference(config: ModelConfig) -> None:
    model, ids = build(config), prompt(600)
    want = reference_logits(config, model.tensors(), ids)
    torch.testing.assert_close(fast_logits(model, ids).double(), want, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, num_kv_heads=8, tie_word_embeddings=True),
        replace(CONFIG, attention_bias=True, mlp_bias=True, head_dim=24),
        replace(CONFIG, rope_scaling=LLAMA3),
        replace(CONFIG, rope_scaling=RopeScaling("linear", 2.5)),
        replace(CONFIG, family="qwen2", tie_word_embeddings=True),
        replace(CONFIG, family="qwen3", head_dim=24),
        replace(CONFIG, family="qwen3", attention_bias=True, rope_scaling=LLAMA3),
    ],
    ids=[
        "gqa",
        "mha-tied",
        "biased",
        "llama3",
        "linear",
        "qwen2-tied",
        "qwen3",
        "qwen3-biased-llama3",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_equals_transformers(config: ModelConfig, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, ids = build(config), prompt(600)
    save_model(tmp_path, model, random_tiny_tokenizer(), eos_token_ids=(1,))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        want = theirs(ids[None]).logits[0]
    torch.testing.assert_close(fast_logits(model, ids), want, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_reads_what_transformers_writes(family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = {"vocab_size": 1100, "hidden_size": 64, "intermediate_size": 96}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    rope = {"rope_type": "llama3", "rope_theta": 5e4, "factor": 4.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 128}
    config = getattr(transformers, f"{family}Config")(
        **shape, **heads, rope_parameters=rope, max_position_embeddings=512, initializer_range=0.2
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):  # zeros would hide that they are forgotten
            torch.nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(random_tiny_tokenizer().to_str())
    ours, ids = load_model(str(tmp_path)).float_model, prompt(300)
    with torch.inference_mode():
        want = theirs(ids[None]).logits[0, :, :1024]
    torch.testing.assert_close(fast_logits(ours, ids)[:, :1024], want, atol=1e-4, rtol=1e-5)


def test_skip_off_equals_the_plain_transformer_bit_for_bit() -> None:
    """A skip model whose missing values are written out is the plain model, to the bit.

    Only the first layer's input is the same in all layers, so the comparison needs two layers
    in which the second sees what the first saw: o_proj and down_proj of layer 0 are zero.
    """
    skip = build(replace(CONFIG, num_layers=2, skip_v1=True))
    plain = build(replace(CONFIG, num_layers=2))
    ours, theirs = skip.tensors(), plain.tensors()
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        ours[f"model.layers.0.{name}.weight"].zero_()
    ours["model.layers.1.input_layernorm.weight"].copy_(
        ours["model.layers.0.input_layernorm.weight"]
    )
    for name, tensor in ours.items():
        if "layers.1.self_attn.v_proj" not in name:
            theirs[name].copy_(tensor)
    own = ours["model.layers.1.self_attn.v_proj.weight"]
    skipped = ours["model.layers.0.self_attn.v_proj.weight"][len(own) :]
    theirs["model.layers.1.self_attn.v_proj.weight"].copy_(torch.cat([own, skipped]))
    ids = prompt(600)
    assert torch.equal(fast_logits(skip, ids), fast_logits(plain, ids))


def test_the_switch_off_is_an_ordinary_model() -> None:
    config = read_config(
        write_config(CONFIG) | {"architectures": ["SkipV1LlamaForCausalLM"], "skip_v1": False}
    )
    assert config == read_config(write_config(CONFIG)) == CONFIG
    ids = prompt(100)
    assert torch.equal(fast_logits(build(config), ids), fast_logits(build(CONFIG), ids))


@pytest.mark.parametrize("kv_heads", [2, 8])
def test_the_cache_holds_only_what_is_needed(kv_heads: int) -> None:
    config = replace(CONFIG, num_layers=4, num_kv_heads=kv_heads)
    full = build(config).make_cache(1000)
    skip = build(replace(config, skip_v1=True)).make_cache(1000)
    assert full.capacity_tokens == skip.capacity_tokens == 1024
    assert full.allocated_bytes == 4 * 2 * kv_heads * 16 * 1024 * 4
    # (L - 1) / (4 L) of it is saved.
    assert skip.allocated_bytes * 16 == full.allocated_bytes * 13
    skip.reserve(1025)
    assert skip.capacity_tokens == 1536
    assert skip.allocated_bytes * 16 * 1024 == full.allocated_bytes * 13 * 1536


@pytest.mark.parametrize("kv_heads", [2, 8])
@pytest.mark.parametrize("num_layers", [2, 4, 6])
def test_the_cache_of_yoco_holds_only_what_is_needed(kv_heads: int, num_layers: int) -> None:
    config = replace(CONFIG, num_layers=num_layers, num_kv_heads=kv_heads)
    full = build(config).make_cache(600)
    yoco = replace(config, skip_v1=True, skip_v1_k_source=num_layers // 2 - 1)
    cache = build(yoco).make_cache(600)
    for _ in range(2):
        # 1/2 - 1/(4 L) of it is saved.
        rest = 4 * num_layers - (2 * num_layers - 1)
        assert cache.allocated_bytes * 4 * num_layers == full.allocated_bytes * rest
        full.reserve(1500)
        cache.reserve(1500)
    assert cache.allocated_bytes == full.allocated_bytes * (1 - yoco.kv_saving())


@pytest.mark.parametrize("num_kv_heads", [2, 4])
@pytest.mark.parametrize("num_layers", [2, 6])
def test_a_yoco_model_is_a_skip_model_whose_upper_half_looks_elsewhere(
    num_layers: int, num_kv_heads: int
) -> None:
    """To the bit: a skip model still computes its upper keys, here for nobody."""
    k_source = num_layers // 2 - 1
    config = replace(CONFIG, num_layers=num_layers, num_kv_heads=num_kv_heads, skip_v1=True)
    yoco, skip = build(replace(config, skip_v1_k_source=k_source)), build(config)
    for name, tensor in yoco.tensors().items():
        skip.tensors()[name].copy_(tensor)
    ids = prompt(530)
    cache = skip.make_cache(len(ids))
    upper = skip.layers[k_source + 1 :]
    for layer in upper:
        assert isinstance(layer, Layer)
        assert isinstance(layer.attention, GroupedAttention)
        layer.attention._key_layer = k_source
    hidden = skip.forward(ids, [Segment(cache, 0, len(ids))])
    assert torch.equal(fast_logits(yoco, ids), skip.logits(hidden))
    assert f"model.layers.{k_source}.self_attn.k_proj.weight" in yoco.tensors()
    assert f"model.layers.{k_source + 1}.self_attn.k_proj.weight" not in yoco.tensors()


@pytest.mark.parametrize("config", [replace(CONFIG, skip_v1=True), YOCO], ids=["skip", "yoco"])
def test_no_step_copies_the_source_layers_values(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel call reads keys and values inside the cache's own storages."""
    model, ids = build(config), prompt(40)
    cache: KVCache = model.make_cache(40)
    held = [t for t in (*cache.keys, *cache.values) if t.numel()]
    storages = {t.untyped_storage().data_ptr() for t in held}
    kernel = torch.nn.functional.scaled_dot_product_attention
    seen: list[int] = []

    def spy(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        seen.extend((k.untyped_storage().data_ptr(), v.untyped_storage().data_ptr()))
        return kernel(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", spy)
    for i in range(0, 40, 20):
        model.forward(ids[i : i + 20], [Segment(cache, i, 20)])
    assert len(seen) == 2 * 2 * (1 + 2 * (config.num_layers - 1))
    assert set(seen) == storages
