"""What vLLM loads of ours into each of its processes: SkipV1 models and the seeded sampler.

The modules beside this one subclass vLLM's classes, so only vLLM imports them, by name; this one
imports nothing. `docs/guides/vllm.md` describes the layout of the cache.
"""

__all__ = ["ARCHITECTURES", "SAMPLER", "register"]

ARCHITECTURES = ("SkipV1LlamaForCausalLM", "SkipV1Qwen2ForCausalLM", "SkipV1Qwen3ForCausalLM")
SAMPLER = "pd_server.vllm_plugin.seeded_sampler:SeededSampler"


def register() -> None:
    """Tell vLLM of our architectures: its entry point `vllm.general_plugins` calls this."""
    from vllm import ModelRegistry

    for architecture in ARCHITECTURES:
        ModelRegistry.register_model(
            architecture, "pd_server.vllm_plugin.skip_v1_model:SkipV1ForCausalLM"
        )
