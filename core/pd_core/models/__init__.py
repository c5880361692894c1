"""Models of the Llama family: configuration, forward pass, KV cache, checkpoints."""

from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.inspection import ModelReport, inspect_model
from pd_core.models.kv_cache import KVCache, Segment
from pd_core.models.loading import LoadedModel, load_model, save_model

__all__ = [
    "CausalLM",
    "KVCache",
    "LoadedModel",
    "ModelConfig",
    "ModelReport",
    "Segment",
    "inspect_model",
    "load_model",
    "save_model",
]
