"""Models of the Llama family: configuration, forward pass, KV cache."""

from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache, Segment

__all__ = ["CausalLM", "KVCache", "ModelConfig", "Segment"]
