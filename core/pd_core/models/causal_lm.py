"""The Llama family for inference, SkipV1Former as a switch of the config.

Legend: T tokens of a ragged batch, R rows, H query heads, G KV heads, g = H / G, D head dim.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pd_core.errors import EngineError
from pd_core.models.attention import CausalMask, PlainSpan, TiledSpan
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment
from pd_core.models.linear import ReproducibleLinear
from pd_core.models.rope import RotaryEmbedding, rotate
from pd_core.numerics import Numerics

__all__ = ["CausalLM", "silu"]

# A long batch goes through the layers in passes of this many tokens: activations stay in the
# CPU's cache, and no result changes, as rows do not depend on their chunk.
_PASS_TOKENS = 512


class RMSNorm(torch.nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.empty(size, dtype=dtype, device=device), requires_grad=False
        )
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of x: (T, hidden)."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * (wide * scale).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) from operations whose last bits do not depend on the place in memory.

    torch's own SiLU treats the end of a buffer (and of each thread's share) by other code than
    the rest, and the two differ in the last bit; exp does not.
    """
    return x / (1 + torch.exp(-x))


class Layer(torch.nn.Module):
    """One decoder layer; q, k, v and gate, up are fused into one matrix each."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        numerics: Numerics,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._config = config
        self._index = index
        hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
        self._num_value_heads = config.num_value_heads(index)
        qkv_heads = config.num_heads + config.num_kv_heads + self._num_value_heads

        def linear(in_features: int, out_features: int, bias: bool) -> ReproducibleLinear:
            return ReproducibleLinear(
                in_features, out_features, bias=bias, numerics=numerics, dtype=dtype, device=device
            )

        self.input_norm = RMSNorm(hidden, config.rms_norm_eps, dtype, device)
        self.qkv_proj = linear(hidden, qkv_heads * dim, config.attention_bias)
        self.o_proj = linear(config.num_heads * dim, hidden, config.attention_bias)
        self.post_attention_norm = RMSNorm(hidden, config.rms_norm_eps, dtype, device)
        self.gate_up_proj = linear(hidden, 2 * inner, config.mlp_bias)
        self.down_proj = linear(inner, hidden, config.mlp_bias)

    def forward(self, x: Tensor, batch: "_Pass") -> Tensor:
        """Map x: (T, hidden) to (T, hidden), writing this layer's keys and values."""
        x = x + self.o_proj(self._attend(self.input_norm(x), batch))
        gate, up = self.gate_up_proj(self.post_attention_norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down_proj(silu(gate) * up)
        return out

    def _attend(self, x: Tensor, batch: "_Pass") -> Tensor:
        """Return the heads' outputs, (T, H * D)."""
        c = self._config
        heads = self.qkv_proj(x).view(x.shape[0], -1, c.head_dim)
        rotated = rotate(heads[:, : c.num_heads + c.num_kv_heads], batch.cos, batch.sin)
        q = rotated[:, : c.num_heads].view(-1, c.num_kv_heads, c.group, c.head_dim)
        k = rotated[:, c.num_heads :].transpose(0, 1)  # (G, T, D)
        v = heads[:, c.num_heads + c.num_kv_heads :].transpose(0, 1)
        out = torch.zeros(x.shape[0], c.num_heads * c.head_dim, dtype=x.dtype, device=x.device)
        row = 0
        for segment, span in batch.parts:
            rows = slice(row, row + segment.num_tokens)
            places = slice(segment.start, segment.start + segment.num_tokens)
            segment.cache.keys[self._index][:, places] = k[:, rows]
            segment.cache.values[self._index][:, places] = v[:, rows]
            out[rows] = self._attend_span(q[rows], segment.cache, span)
            row = rows.stop
        return out

    def _attend_span(self, q: Tensor, cache: KVCache, span: TiledSpan | PlainSpan) -> Tensor:
        """Attend q: (T, G, g, D) to one sequence's cache; (T, H * D).

        In a SkipV1 layer the upper half of the KV heads reads the first layer's values in place.
        """
        tiles = span.fold(q)
        out = torch.empty_like(tiles)
        keys, values = cache.keys[self._index], cache.values[self._index]
        own = self._num_value_heads
        span.attend(tiles[:, :own], keys[:own], values, out[:, :own])
        if own < tiles.shape[1]:
            span.attend(tiles[:, own:], keys[own:], cache.values[0][own:], out[:, own:])
        return span.unfold(out, self._config.group)


class _Pass:
    """What the layers share while one batch goes through them."""

    def __init__(
        self, parts: Sequence[tuple[Segment, TiledSpan | PlainSpan]], cos: Tensor, sin: Tensor
    ) -> None:
        self.parts = parts
        self.cos = cos
        self.sin = sin


class CausalLM(torch.nn.Module):
    """A decoder-only language model over a ragged batch of sequences.

    Weights are uninitialised until the caller fills `tensors()`. Not thread-safe: one owner.
    """

    def __init__(
        self,
        config: ModelConfig,
        numerics: Numerics,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        device = device or torch.device("cpu")
        self.config = config
        self.numerics = numerics
        self.dtype = dtype
        self.device = device
        # Rows of the output layer past this one belong to no token.
        self.num_token_ids = config.vocab_size
        shape = (config.vocab_size, config.hidden_size)
        self.embed_tokens = torch.nn.Parameter(
            torch.empty(shape, dtype=dtype, device=device), requires_grad=False
        )
        self.layers = torch.nn.ModuleList(
            Layer(config, i, numerics, dtype, device) for i in range(config.num_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype, device)
        self.lm_head = ReproducibleLinear(
            config.hidden_size,
            config.vocab_size,
            bias=False,
            numerics=numerics,
            dtype=dtype,
            device=device if not config.tie_word_embeddings else torch.device("meta"),
        )
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens
        self._rope = RotaryEmbedding(config.head_dim, config.rope_theta, dtype=dtype, device=device)
        self._mask = CausalMask(config.group, dtype=dtype, device=device)

    def make_cache(self, capacity_tokens: int) -> KVCache:
        """Return an empty cache for one sequence; capacity is rounded up to 512."""
        return KVCache(
            self.config.layer_heads(),
            self.config.head_dim,
            capacity_tokens,
            dtype=self.dtype,
            device=self.device,
        )

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Run token_ids: (T,), the segments' tokens in their order; return hidden (T, hidden).

        Writes each segment's keys and values into its cache. Rows do not depend on how tokens
        are cut into calls or batched with other sequences, when the numerics are reproducible.

        Raises:
            EngineError: a cache is too small for its segment.
        """
        assert token_ids.shape == (sum(s.num_tokens for s in segments),), "segments cover the ids"
        for s in segments:
            if s.start + s.num_tokens > s.cache.capacity_tokens:
                raise EngineError(
                    f"a cache of {s.cache.capacity_tokens} tokens cannot take positions "
                    f"{s.start}..{s.start + s.num_tokens - 1}; reserve more first"
                )
        outputs = []
        row = 0
        for parts in _passes(segments):
            num_tokens = sum(s.num_tokens for s in parts)
            outputs.append(self._run_pass(token_ids[row : row + num_tokens], parts))
            row += num_tokens
        if not outputs:
            return self.embed_tokens.new_empty(0, self.config.hidden_size)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _run_pass(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor:
        """One pass through all layers; padded once here so that no linear layer has to pad."""
        num_tokens = token_ids.shape[0]
        pad = max(self.numerics.min_rows - num_tokens, 0)
        positions = torch.cat(
            [torch.arange(s.start, s.start + s.num_tokens) for s in segments]
            + [torch.zeros(pad, dtype=torch.int64)]
        ).to(self.device)
        self._rope.reserve(max(s.start + s.num_tokens for s in segments))
        batch = _Pass([(s, self._span(s)) for s in segments], *self._rope.at(positions))
        x = torch.nn.functional.pad(self.embed_tokens[token_ids], (0, 0, 0, pad))
        for layer in self.layers:
            x = layer(x, batch)
        hidden: Tensor = self.norm(x)
        return hidden[:num_tokens]

    def _span(self, segment: Segment) -> TiledSpan | PlainSpan:
        if self.numerics.reproducible:
            return TiledSpan(self._mask, segment.start, segment.num_tokens)
        return PlainSpan(segment.start, segment.num_tokens, self.device)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden: (R, hidden) to float32 logits (R, V); ids of no token get -inf."""
        logits: Tensor = self.lm_head(hidden).float()
        logits[:, self.num_token_ids :] = float("-inf")
        return logits

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors by name: views into the fused weights, to fill or save."""
        c, dim = self.config, self.config.head_dim
        named = {
            "model.embed_tokens.weight": self.embed_tokens.data,
            "model.norm.weight": self.norm.weight.data,
        }
        if not c.tie_word_embeddings:
            named["lm_head.weight"] = self.lm_head.weight.data
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            prefix = f"model.layers.{i}"
            named[f"{prefix}.input_layernorm.weight"] = layer.input_norm.weight.data
            named[f"{prefix}.post_attention_layernorm.weight"] = (
                layer.post_attention_norm.weight.data
            )
            qkv = [c.num_heads * dim, c.num_kv_heads * dim, c.num_value_heads(i) * dim]
            parts = (
                (layer.qkv_proj, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), qkv),
                (layer.o_proj, ("self_attn.o_proj",), [c.hidden_size]),
                (layer.gate_up_proj, ("mlp.gate_proj", "mlp.up_proj"), [c.intermediate_size] * 2),
                (layer.down_proj, ("mlp.down_proj",), [c.hidden_size]),
            )
            for fused, names, rows in parts:
                for name, weight in zip(names, torch.split(fused.weight.data, rows), strict=True):
                    named[f"{prefix}.{name}.weight"] = weight
                if fused.bias is not None:
                    for name, bias in zip(names, torch.split(fused.bias.data, rows), strict=True):
                        named[f"{prefix}.{name}.bias"] = bias
        return named


def _passes(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Cut a batch into passes of at most _PASS_TOKENS tokens, in order."""
    batch: list[Segment] = []
    room = _PASS_TOKENS
    for s in segments:
        done = 0
        while done < s.num_tokens:
            count = min(room, s.num_tokens - done)
            batch.append(Segment(s.cache, s.start + done, count))
            done += count
            room -= count
            if room == 0:
                yield batch
                batch, room = [], _PASS_TOKENS
    if batch:
        yield batch
