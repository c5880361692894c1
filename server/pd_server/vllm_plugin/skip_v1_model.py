"""SkipV1 models for vLLM: Llama, Qwen2 and Qwen3, SkipV1Former and SkipV1-YOCO."""

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.llama import LlamaMLP
from vllm.sequence import IntermediateTensors
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.attention.selector import get_attn_backend

from pd_core.checkpoints.hf_config import read_config
from pd_core.checkpoints.quantization_config import read_schemes
from pd_core.errors import ConfigError, ModelError
from pd_core.models import ModelConfig
from pd_server.vllm_plugin.cached_attention import KVLayout, NaiveAttention, UnitAttention
from pd_server.vllm_plugin.skip_v1_attention import Shared, SkipV1Attention

__all__ = ["SkipV1ForCausalLM", "SkipV1Layer", "SkipV1Model"]

logger = logging.getLogger(__name__)

_LAYOUT_KEY = "skip_v1_kv_layout"
_DERIVED_SUFFIX = "rotary_emb.inv_freq"  # in old checkpoints; computed from the config


class SkipV1Layer(torch.nn.Module):
    """One decoder layer."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        earlier: Sequence[NaiveAttention | UnitAttention],
        layout: KVLayout,
        vllm_config: VllmConfig,
        prefix: str,
    ) -> None:
        super().__init__()
        self.self_attn = SkipV1Attention(
            config,
            index,
            earlier,
            layout,
            vllm_config,
            f"{prefix}.self_attn",
        )
        self.mlp = LlamaMLP(
            config.hidden_size,
            config.intermediate_size,
            "silu",
            bias=config.mlp_bias,
            prefix=f"{prefix}.mlp",
        )
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, positions: Tensor, hidden: Tensor, residual: Tensor | None, shared: Shared
    ) -> tuple[Tensor, Tensor]:
        """Map hidden and residual, (T, hidden) each; the layer's output is returned unadded."""
        if residual is None:
            residual, hidden = hidden, self.input_layernorm(hidden)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden = self.self_attn(positions, hidden, shared)
        hidden, residual = self.post_attention_layernorm(hidden, residual)
        return self.mlp(hidden), residual


@support_torch_compile
class SkipV1Model(torch.nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise ConfigError(
                "SkipV1 models have no pipeline parallelism: all layers read the first one's "
                "values; use tensor parallelism"
            )
        config = _model_config(vllm_config)
        layout = _kv_layout(config, vllm_config)
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList()
        earlier: list[NaiveAttention | UnitAttention] = []
        for i in range(config.num_layers):
            layer = SkipV1Layer(config, i, earlier, layout, vllm_config, f"{prefix}.layers.{i}")
            self.layers.append(layer)
            earlier.append(layer.self_attn.attn)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Map input_ids and positions: (T,) to hidden (T, hidden)."""
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        residual = None
        shared = Shared()
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual, shared)
        normed: Tensor
        normed, _ = self.norm(hidden, residual)
        return normed


class SkipV1ForCausalLM(torch.nn.Module):
    """The model vLLM runs; checkpoint names are those of the plain family."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = _model_config(vllm_config)
        self.config = vllm_config.model_config.hf_config
        self.model = SkipV1Model(vllm_config=vllm_config, prefix=f"{prefix}.model".lstrip("."))
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self._tied = config.tie_word_embeddings
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Map (T,) to (T, hidden)."""
        embedded: Tensor = self.model.embed_tokens(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Map input_ids and positions: (T,) to hidden (T, hidden)."""
        hidden: Tensor = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Map (R, hidden) to (R, V)."""
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Fill the parameters from a checkpoint's tensors; return the names filled.

        Raises:
            ModelError: a tensor has no place here.
        """
        places = dict(self.named_parameters())
        filled: set[str] = set()
        for name, tensor in weights:
            if name.endswith(_DERIVED_SUFFIX):
                continue
            if self._tied and name == "lm_head.weight":  # the same, and may be stored alone
                name = "model.embed_tokens.weight"
            place, shards = self._place_of(name)
            if place not in places:
                raise ModelError(f"tensor {name} has no place in a SkipV1 model of this shape")
            parameter = places[place]
            loader = getattr(parameter, "weight_loader", default_weight_loader)
            if not shards:
                loader(parameter, self._ordered(place, tensor))
            for shard, part in zip(shards, tensor.chunk(max(len(shards), 1)), strict=False):
                loader(parameter, part, shard)
            filled.add(place)
        return filled

    def _ordered(self, place: str, tensor: Tensor) -> Tensor:
        """Return a whole parameter's tensor in the order of the attention's units."""
        module, _, kind = place.rpartition(".o_proj.")
        if kind != "weight":
            return tensor
        attention = self.get_submodule(module)
        assert isinstance(attention, SkipV1Attention), f"{module} is not attention"
        return attention.output_columns(tensor)

    def _place_of(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return the parameter a checkpoint's tensor belongs to, and the parts that it fills."""
        module, _, projection = name.rpartition(".")[0].rpartition(".")
        kind = name.rpartition(".")[2]
        if projection in ("gate_proj", "up_proj"):
            return f"{module}.gate_up_proj.{kind}", (int(projection == "up_proj"),)
        if projection in ("q_proj", "k_proj", "v_proj"):
            attention = self.get_submodule(module)
            assert isinstance(attention, SkipV1Attention), f"{module} is not attention"
            shards = attention.shards().get(projection, ())
            return f"{module}.qkv_proj.{kind}" if shards else name, shards
        return name, ()


def _model_config(vllm_config: VllmConfig) -> ModelConfig:
    """Return the model's shape as our ModelConfig, checked as the torch engine checks it."""
    raw = vllm_config.model_config.hf_config.to_dict()
    if read_schemes(raw):
        raise ModelError(
            "a SkipV1 model whose weights are integers is not supported by vLLM's layers; use "
            "--engine torch, or the model that it was made from"
        )
    return read_config(raw)


def _kv_layout(config: ModelConfig, vllm_config: VllmConfig) -> KVLayout:
    """Choose the cache's layout; warn if it saves nothing.

    Raises:
        ConfigError: `skip_v1_kv_layout` in vLLM's additional config is not a known layout.
    """
    extra = vllm_config.additional_config
    wanted = extra.get(_LAYOUT_KEY, KVLayout.UNIT) if isinstance(extra, dict) else KVLayout.UNIT
    if wanted not in tuple(KVLayout):
        raise ConfigError(f"{_LAYOUT_KEY} is {wanted!r}; it must be one of {', '.join(KVLayout)}")
    cache_dtype = vllm_config.cache_config.cache_dtype
    backend = get_attn_backend(
        config.head_dim, vllm_config.model_config.dtype, cache_dtype, use_mla=False
    )
    reason = ""
    if wanted == KVLayout.NAIVE:
        reason = "the settings ask for it"
    elif backend is not CPUAttentionBackend:
        reason = f"the unit layout is written for CPU_ATTN, and this is {backend.get_name()}"
    elif str(cache_dtype).startswith("fp8"):
        reason = "the unit layout has no fp8 cache"
    if reason:
        logger.warning("SkipV1 uses the naive KV layout, without its saving: %s", reason)
        return KVLayout.NAIVE
    return KVLayout.UNIT
