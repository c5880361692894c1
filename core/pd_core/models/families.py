"""The families of ordinary checkpoints, and their differences."""

from dataclasses import dataclass

from pd_core.errors import ModelError

__all__ = ["FAMILIES", "Family", "family_of_architecture"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family; its defaults are those of `transformers` for keys missing in config.json.

    Attributes:
        name: Hugging Face's model_type.
        architecture: Hugging Face's class of the plain model.
        qkv_bias: always biases on q, k and v, whatever the config says, and none on o.
        qk_norm: each head's query and key go through an RMSNorm before RoPE.
        has_bias_flags: attention_bias is read from config.json.
        has_mlp_bias_flag: mlp_bias is read from config.json.
        window_flag: a sliding window applies only if use_sliding_window is true.
        latent: keys and values are computed from a cached latent (MLA).
        num_kv_heads: default; None means as many as query heads.
        head_dim: default; None means hidden_size divided by the number of query heads.
        max_context_tokens: default.
    """

    name: str
    architecture: str
    qkv_bias: bool = False
    qk_norm: bool = False
    has_bias_flags: bool = True
    has_mlp_bias_flag: bool = False
    window_flag: bool = True
    latent: bool = False
    num_kv_heads: int | None = 32
    head_dim: int | None = None
    max_context_tokens: int = 32768

    @property
    def skip_architecture(self) -> str:
        """The class name of its SkipV1 models."""
        return f"SkipV1{self.architecture}"


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "llama",
            "LlamaForCausalLM",
            has_mlp_bias_flag=True,
            window_flag=False,
            num_kv_heads=None,
            max_context_tokens=2048,
        ),
        Family("qwen2", "Qwen2ForCausalLM", qkv_bias=True, has_bias_flags=False),
        Family("qwen3", "Qwen3ForCausalLM", qk_norm=True, head_dim=128),
        Family(
            "deepseek_v2",
            "DeepseekV2ForCausalLM",
            has_mlp_bias_flag=True,
            window_flag=False,
            latent=True,
            num_kv_heads=None,
            max_context_tokens=2048,
        ),
    )
}


def family_of_architecture(names: object, model_type: object) -> tuple[Family, bool]:
    """Return the family, and whether the name is that of a SkipV1 model.

    Args:
        names: config.json's `architectures`; without it the model_type decides.
        model_type: config.json's `model_type`.

    Raises:
        ModelError: the family is not supported.
    """
    if not names and isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type], False
    if isinstance(names, list) and len(names) == 1:
        for family in FAMILIES.values():
            if names[0] in (family.architecture, family.skip_architecture):
                return family, names[0] == family.skip_architecture
    known = ", ".join(family.architecture for family in FAMILIES.values())
    raise ModelError(
        f"config.json: architectures is {names!r}; supported are {known}, each also with "
        "'SkipV1' before it"
    )
