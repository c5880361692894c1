"""The plugin that vLLM loads into each of its processes: SkipV1 models and the seeded sampler.

The other modules here subclass vLLM's classes, so only vLLM imports them, by name; this one imports
nothing. `docs/guides/vllm.md` describes the layout of the cache.
"""

__all__ = ["ARCHITECTURES", "SAMPLER", "register"]

ARCHITECTURES = ("SkipV1LlamaForCausalLM", "SkipV1Qwen2ForCausalLM", "SkipV1Qwen3ForCausalLM")
SAMPLER = "pd_server.vllm_plugin.seeded_sampler:SeededSampler"


def register() -> None:
    """Register our architectures; vLLM calls this by its entry point `vllm.general_plugins`."""
    from vllm import ModelRegistry

    for architecture in ARCHITECTURES:
        ModelRegistry.register_model(
            architecture, "pd_server.vllm_plugin.skip_v1_model:SkipV1ForCausalLM"
        )
