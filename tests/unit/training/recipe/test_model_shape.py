"""A few options become a whole config, or say what contradicts what."""

from typing import Any

import pytest

from pd_core.errors import ConfigError, ModelError
from pd_core.models.latent_shape import LatentShape
from pd_training.model.model import TrainingModel
from pd_training.recipe.model_shape import ModelShape

SMALL = {"hidden": 48, "layers": 4, "heads": 4}


def shape(**changes: Any) -> ModelShape:
    return ModelShape(**(SMALL | changes))


def test_what_is_not_given_follows_from_the_rest() -> None:
    config = shape().config(300, 64)
    assert (config.num_kv_heads, config.head_dim, config.intermediate_size) == (4, 12, 128)
    assert (config.vocab_size, config.max_context_tokens) == (300, 64)
    assert config.tie_word_embeddings
    assert not config.skip_v1
    config = shape(kv_heads=2, inter=56, tied=False, skip_v1=True).config(300, 64)
    assert (config.num_kv_heads, config.intermediate_size) == (2, 56)
    assert config.skip_v1
    assert not config.tie_word_embeddings


def test_yoco_is_a_skip_v1_model_whose_source_ends_the_lower_half() -> None:
    config = shape(yoco=True).config(300, 64)
    assert config == shape(yoco=True, skip_v1=True).config(300, 64)
    assert (config.skip_v1, config.skip_v1_k_source) == (True, 1)


def test_a_latent_has_a_rotated_key_of_half_a_head() -> None:
    config = shape(latent_rank=16, skip_v1=True).config(300, 64)
    assert config.latent == LatentShape(16, nope_dim=12, value_dim=12)
    assert (config.family, config.head_dim, config.num_kv_heads) == ("deepseek_v2", 6, 4)
    assert shape(latent_rank=16, rope_dim=8).config(300, 64).head_dim == 8
    # 4 layers x (16 + 6) elements; SkipV1 keeps 8 of the 16 in all layers but the first.
    assert config.plain_kv_elements() == 88
    assert sum(own.key_dim or 0 for own in config.layer_heads()) == 88 - 3 * 8


def test_a_share_becomes_whole_heads_and_a_user_is_told() -> None:
    asked = shape(heads=12, kv_heads=3, skip_v1=True)
    assert asked.config(300, 64).num_value_heads(1) == 2
    note = asked.rounding_note()
    assert note is not None
    assert "0.5 of 3 KV heads is rounded to 2 of a layer's own and 1 of the first layer's" in note
    exact = shape(skip_v1_keep=0.75, yoco=True)
    assert exact.config(300, 64).num_value_heads(1) == 3
    assert exact.rounding_note() is None
    latent = shape(latent_rank=7, skip_v1=True)
    assert latent.config(300, 64).own_rank(1) == 4
    assert "7 elements of the latent" in str(latent.rounding_note())
    assert shape().rounding_note() is None
    assert shape(skip_v1=True, skip_v1_keep=0.5).config(300, 64).skip_v1_own is None


def test_a_single_kv_head_cannot_be_shared() -> None:
    with pytest.raises(ModelError, match="there is 1 only"):
        shape(kv_heads=1, skip_v1=True).config(300, 64)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_families_are_trained_from_scratch(family: str) -> None:
    config = shape(family=family, yoco=True).config(300, 64)
    assert config.family == family
    names = set(TrainingModel(config).state_dict())
    assert ("model.layers.0.self_attn.q_proj.bias" in names) == (family == "qwen2")
    assert ("model.layers.0.self_attn.q_norm.weight" in names) == (family == "qwen3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "does not divide by 5 heads"),
        ({"heads": 0}, "--heads is 0"),
        ({"kv_heads": 0}, "--kv-heads is 0"),
        ({"inter": 0}, "--inter is 0"),
        ({"layers": 5, "yoco": True}, "5 is odd"),
        ({"rope_dim": 8}, "give --latent-rank too"),
        ({"latent_rank": 0}, "--latent-rank is 0"),
        ({"latent_rank": 8, "rope_dim": 7}, "RoPE needs an even one"),
        ({"skip_v1_keep": 0.5}, "give --skip-v1 or --yoco too"),
        ({"skip_v1_keep": 0.0, "skip_v1": True}, "above 0 and below 1"),
        ({"skip_v1_keep": 1.0, "skip_v1": True}, "--skip-v1-keep is 1.0"),
        ({"skip_v1_keep": -0.5, "yoco": True}, "--skip-v1-keep is -0.5"),
        ({"skip_v1_keep": float("nan"), "skip_v1": True}, "--skip-v1-keep is nan"),
        ({"latent_rank": 8, "yoco": True}, "exclude each other"),
        ({"latent_rank": 8, "kv_heads": 2}, "leave out --kv-heads"),
        ({"latent_rank": 8, "family": "qwen2"}, "leave out --family"),
        ({"family": "deepseek_v2"}, "unknown --family"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape(**changes).config(300, 64)


def test_heads_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot share"):
        shape(kv_heads=3).config(300, 64)
