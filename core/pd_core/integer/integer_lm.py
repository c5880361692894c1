"""A model of the Llama family in integer numerics, in the place of a `CausalLM`.

Legend: T tokens of a ragged batch, R rows, V vocabulary.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pd_core.errors import ModelError
from pd_core.identity.numerics import INTEGER
from pd_core.integer.exact_angles import cos_and_sin
from pd_core.integer.integer_cache import IntegerKVCache
from pd_core.integer.native_passes import MOST_ROWS, NativePasses, serving_kernels
from pd_core.integer.torch_passes import TorchPasses
from pd_core.integer.weights import (
    EMBEDDING,
    HEAD,
    IntegerWeight,
    Rounded,
    Take,
    layer_weights,
    padded,
    round_rows,
)
from pd_core.models.causal_lm import passes
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment, check_room
from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention, score_layer
from pd_core.models.rope import frequencies

__all__ = ["IntegerLM"]

_ANGLES = 2048  # positions whose angles are computed together


class _Passes(Protocol):
    @property
    def weight_bytes(self) -> int: ...
    def run(
        self, x: Tensor, cos: Tensor, sin: Tensor, segments: Sequence[Segment], stop: int
    ) -> None: ...
    def normalise(self, x: Tensor, weight: Tensor) -> Tensor: ...
    def logits(self, x: Tensor) -> Tensor: ...
    def last_queries(self, rows: int) -> tuple[Tensor, Tensor]: ...


class IntegerLM:
    """A decoder-only language model over a ragged batch of sequences.

    The weights are rounded to 8 bits as they are taken, unless they are integers already. Not
    thread-safe: one owner.

    Args:
        config: the model's.
        take: returns a checkpoint's tensor by name, as float32; they are taken sorted by name.
        device: where it computes; the native kernels serve the CPU.
        rounded: returns the weights of the embedding and of linear layers, the output layer's
            included if it is stored; None: those that `take` returns are rounded.

    Raises:
        ModelError: latent attention is not supported in integers.
    """

    def __init__(
        self,
        config: ModelConfig,
        take: Take,
        *,
        device: torch.device,
        rounded: Rounded | None = None,
    ) -> None:
        if config.latent is not None:
            raise ModelError(
                "integer numerics do not support latent attention (MLA); use --numerics float32"
            )
        self.config = config
        self.numerics = INTEGER
        self.dtype = torch.float32
        self.device = device
        self.num_token_ids = config.vocab_size
        self._cos = self._sin = torch.empty(0, config.head_dim // 2, device=device)

        def placed(name: str) -> Tensor:
            return take(name).to(device=device, dtype=torch.float32)

        def placed_integers(name: str) -> IntegerWeight:
            whole = round_rows(placed(name)) if rounded is None else rounded(name)
            return whole.to(device)

        library = serving_kernels(config, device)
        # What is no longer needed is let go at once: it counts in the most that a load takes.
        head = None if config.tie_word_embeddings else padded(placed_integers(HEAD))
        embedding = padded(placed_integers(EMBEDDING))
        self._embedding, self._embedding_scales = embedding.codes, embedding.scales
        layers = (
            (i, layer_weights(config, i, placed, placed_integers))
            for i in sorted(range(config.num_layers), key=str)
        )
        self._passes: _Passes
        if library is None:
            self._passes = TorchPasses(
                config, [layer for _, layer in sorted(layers, key=itemgetter(0))], head or embedding
            )
        else:
            native = NativePasses(library, config, head or embedding)
            if head is None:
                self._embedding = native.head_panels
            del head, embedding
            native.pack(layers)
            self._passes = native
        self._norm = placed("model.norm.weight").contiguous()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a step of decoding reads."""
        return self._passes.weight_bytes

    def make_cache(self, capacity_tokens: int) -> IntegerKVCache:
        """Return an empty cache for one sequence; capacity is rounded up to 512."""
        heads, dim = self.config.layer_heads(), self.config.head_dim
        return IntegerKVCache(heads, dim, capacity_tokens, device=self.device)

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Run token_ids: (T,), the segments' tokens in order; return hidden (T, padded hidden).

        Writes each segment's keys and values into its cache. Rows do not depend on how tokens are
        cut into calls or batched with other sequences.

        Raises:
            EngineError: a cache is too small for its segment.
        """
        check_room(token_ids, segments)
        outputs = []
        row = 0
        for parts in passes(segments, MOST_ROWS):
            num_tokens = sum(s.num_tokens for s in parts)
            x = self._run(token_ids[row : row + num_tokens], parts, self.config.num_layers)
            outputs.append(self._passes.normalise(x, self._norm))
            row += num_tokens
        if len(outputs) == 1:
            return outputs[0]
        return torch.cat(outputs) if outputs else self._embed(token_ids)

    __call__ = forward

    def _run(self, token_ids: Tensor, segments: Sequence[Segment], stop: int) -> Tensor:
        x = self._embed(token_ids)
        self._reserve(max(s.positions_end for s in segments))
        cos, sin = (self._angles(table, segments) for table in (self._cos, self._sin))
        self._passes.run(x, cos, sin, segments, stop)
        return x

    def _angles(self, table: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Return a table's rows at the segments' positions, in order."""
        rows = [
            table[s.start : s.positions_end]
            if s.positions is None
            else table[s.position_ids.to(self.device)]
            for s in segments
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings (T, padded hidden) of token ids."""
        if self._embedding.dim() != 2:  # the output layer's panels
            assert isinstance(self._passes, NativePasses), "the kernels' order"
            return self._passes.embed(token_ids)
        ids = token_ids.to(self.device)
        return self._embedding[ids].float() * self._embedding_scales[ids][:, None]

    def _reserve(self, num_tokens: int) -> None:
        """Cover positions below num_tokens by cosines and sines."""
        known = len(self._cos)
        if num_tokens <= known:
            return
        c = self.config
        end = -(-num_tokens // _ANGLES) * _ANGLES
        frequency = frequencies(c.head_dim, c.rope_theta, c.rope_scaling).numpy()
        angles = np.arange(known, end, dtype=np.float32)[:, None] * frequency
        cos, sin = (torch.from_numpy(t).to(self.device) for t in cos_and_sin(angles.astype(float)))
        self._cos, self._sin = torch.cat((self._cos, cos)), torch.cat((self._sin, sin))

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden: (R, padded hidden) to float32 logits (R, V); ids without a token get -inf.

        They come to the CPU: a sampler's logarithms there are those of the other side.
        """
        logits = self._passes.logits(hidden)[:, : self.config.vocab_size].cpu()
        logits[:, self.num_token_ids :] = float("-inf")
        return logits

    @torch.inference_mode()
    def prompt_scores(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Return how much the end of a prompt attends to each token; see `prompt_scores.py`.

        Args:
            token_ids: (n,), the prompt, whose keys and values are cached.
            cache: may hold more tokens after the prompt's.
        """
        assert isinstance(cache, IntegerKVCache), "integer numerics have a cache of their own"
        num_keys, window = len(token_ids), token_ids[-SCORE_WINDOW:]
        index = score_layer(self.config.num_layers, self.config.skip_v1_k_source)
        segment = Segment(cache, num_keys - len(window), len(window))
        self._run(window, [segment], index + 1)
        queries, scales = self._passes.last_queries(len(window))
        keys, key_scales = cache.read_keys(self.config.key_layer(index), num_keys)
        keys = (keys.float() * key_scales[..., None]).repeat_interleave(self.config.group, 0)
        scaled = (queries.float() * scales[..., None]).transpose(0, 1)
        return mean_attention(scaled @ keys.transpose(1, 2) * self.config.head_dim**-0.5)

    def warm_up(self) -> None:
        """Compute one token, so that the first request pays for nothing."""
        token = torch.zeros(1, dtype=torch.int64)
        self.logits(self.forward(token, [Segment(self.make_cache(1), 0, 1)]))
