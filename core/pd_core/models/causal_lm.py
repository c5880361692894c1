"""The Llama family for inference, with SkipV1Former as a switch in the config.

Legend: T tokens of a ragged batch, R rows, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pd_core.identity.numerics import Numerics
from pd_core.models.attention import CausalMask, Pass, PlainBatch, TiledBatch
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment, check_room
from pd_core.models.layer import Layer
from pd_core.models.linear import Placement, ReproducibleLinear
from pd_core.models.norm import RMSNorm
from pd_core.models.prompt_scores import SCORE_WINDOW, mean_attention, score_layer
from pd_core.models.rope import RotaryEmbedding

__all__ = ["CausalLM", "passes"]

# A long batch goes through the layers in passes of this many tokens, so that activations stay in
# the CPU's cache. Results do not change, because rows do not depend on their chunk.
_PASS_TOKENS = 512


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
        # Further rows of the output layer belong to no token.
        self.num_token_ids = config.vocab_size
        shape = (config.vocab_size, config.hidden_size)
        self.embed_tokens = torch.nn.Parameter(
            torch.empty(shape, dtype=dtype, device=device), requires_grad=False
        )
        placement = Placement(numerics, dtype, device)
        self.layers = torch.nn.ModuleList(
            Layer(config, i, placement) for i in range(config.num_layers)
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
            self.lm_head.share(self.embed_tokens)
        self._rope = RotaryEmbedding(
            config.head_dim, config.rope_theta, config.rope_scaling, dtype=dtype, device=device
        )
        self._mask = CausalMask(
            config.group, numerics.key_steps, numerics.query_rows, dtype=dtype, device=device
        )

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
        """Run token_ids: (T,), the segments' tokens in order; return hidden (T, hidden).

        Writes each segment's keys and values into its cache. If the numerics are reproducible, rows
        do not depend on how tokens are cut into calls or batched with other sequences.

        Raises:
            EngineError: a cache is too small for its segment.
        """
        check_room(token_ids, segments)
        outputs = []
        row = 0
        for parts in passes(segments, _PASS_TOKENS):
            num_tokens = sum(s.num_tokens for s in parts)
            outputs.append(self._run_pass(token_ids[row : row + num_tokens], parts))
            row += num_tokens
        if not outputs:
            return self.embed_tokens.new_empty(0, self.config.hidden_size)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _run_pass(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor:
        """One pass through all layers."""
        x, batch = self._enter(token_ids, segments)
        for layer in self.layers:
            x = layer(x, batch)
        hidden: Tensor = self.norm(x)
        return hidden[: token_ids.shape[0]]

    def _enter(self, token_ids: Tensor, segments: Sequence[Segment]) -> tuple[Tensor, Pass]:
        """Embed a pass's tokens, padded once here so that no linear layer has to pad."""
        num_tokens = token_ids.shape[0]
        pad = self.numerics.padded_rows(num_tokens) - num_tokens
        positions = torch.cat(
            [s.position_ids for s in segments] + [torch.zeros(pad, dtype=torch.int64)]
        ).to(self.device)
        self._rope.reserve(max(s.positions_end for s in segments))
        batch = Pass(segments, self._attention(segments), *self._rope.at(positions))
        return torch.nn.functional.pad(self.embed_tokens[token_ids], (0, 0, 0, pad)), batch

    def _attention(self, segments: Sequence[Segment]) -> TiledBatch | PlainBatch:
        places = [(s.start, s.num_tokens) for s in segments]
        if self.numerics.reproducible:
            return TiledBatch(self._mask, places)
        return PlainBatch(places, self.dtype, self.device)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden: (R, hidden) to float32 logits (R, V); ids without a token get -inf."""
        logits: Tensor = self.lm_head(hidden).float()
        logits[:, self.num_token_ids :] = float("-inf")
        return logits

    @torch.inference_mode()
    def prompt_scores(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Return how much the end of a prompt attends to each token; see `prompt_scores.py`.

        Runs the prompt's last tokens through the lower layers again, whatever chunks or cached
        blocks its keys came from; this rewrites their cached keys and values with the same bits.

        Args:
            token_ids: (n,), the prompt, whose keys and values are cached.
            cache: may hold more tokens after the prompt's.
        """
        window = token_ids[-SCORE_WINDOW:]
        segment = Segment(cache, len(token_ids) - len(window), len(window))
        x, batch = self._enter(window, [segment])
        index = score_layer(len(self.layers), self.config.skip_v1_k_source)
        for layer in self.layers[:index]:
            x = layer(x, batch)
        scored = self.layers[index]
        assert isinstance(scored, Layer)
        return mean_attention(scored.products(x, batch))

    def warm_up(self) -> None:
        """Compute one token, so that weights are packed before the first request."""
        token = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.logits(self(token, [Segment(self.make_cache(1), 0, 1)]))

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a step of decoding reads; of an embedding of its own, one row."""
        tensors = self.tensors()
        if not self.config.tie_word_embeddings:
            del tensors["model.embed_tokens.weight"]
        return sum(tensor.nbytes for tensor in tensors.values())

    def tensors(self) -> dict[str, Tensor]:
        """Return a checkpoint's tensors by name: views into the fused weights, to fill or save.

        Values written after the model's next run are lost.
        """
        named = {
            "model.embed_tokens.weight": self.embed_tokens.data,
            "model.norm.weight": self.norm.weight.data,
        }
        head = self.lm_head.split({"lm_head": self.lm_head.out_features})
        if not self.config.tie_word_embeddings:
            named |= head
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            named |= {f"model.layers.{i}.{name}": t for name, t in layer.tensors().items()}
        return named


def passes(segments: Sequence[Segment], max_tokens: int) -> Iterator[list[Segment]]:
    """Cut a batch into passes of at most max_tokens tokens, in order."""
    batch: list[Segment] = []
    room = max_tokens
    for s in segments:
        done = 0
        while done < s.num_tokens:
            count = min(room, s.num_tokens - done)
            batch.append(s.part(done, count))
            done += count
            room -= count
            if room == 0:
                yield batch
                batch, room = [], max_tokens
    if batch:
        yield batch
