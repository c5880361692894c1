"""The training model computes what pd_core's inference computes, and trains every weight."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ConfigError, ModelError
from pd_core.files.atomic import new_folder
from pd_core.models import ModelConfig, Segment
from pd_core.models.latent_shape import LatentShape
from pd_core.models.rope_scaling import RopeScaling
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import read_training_model, write_training_model

TOKENIZER = random_tiny_tokenizer()
CONFIG = ModelConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    max_context_tokens=256,
)
# SmolLM2-135M's heads.
THREE = replace(CONFIG, num_heads=9, num_kv_heads=3, skip_v1=True, skip_v1_own=2)
LATENT = LatentShape(kv_rank=12, nope_dim=16, value_dim=16)
WIDE_VALUES = LatentShape(kv_rank=12, nope_dim=8, value_dim=24)
LLAMA3 = RopeScaling("llama3", 8.0, 1.0, 4.0, 64)


def loud_model(config: ModelConfig) -> TrainingModel:
    """Weights large enough that a wrong head or a forgotten bias shows."""
    model = TrainingModel(config, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim == 2 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, num_kv_heads=2, tie_word_embeddings=True),
        replace(CONFIG, skip_v1=True),
        replace(CONFIG, skip_v1=True, num_kv_heads=2, attention_bias=True, mlp_bias=True),
        replace(CONFIG, num_layers=4, skip_v1=True, skip_v1_k_source=1),
        replace(CONFIG, num_layers=4, skip_v1=True, skip_v1_k_source=1, family="qwen3"),
        replace(CONFIG, family="qwen2", num_kv_heads=2, rope_scaling=LLAMA3),
        replace(CONFIG, family="qwen3", skip_v1=True),
        replace(CONFIG, family="deepseek_v2", latent=LATENT),
        replace(CONFIG, family="deepseek_v2", latent=WIDE_VALUES, attention_bias=True),
        replace(CONFIG, family="deepseek_v2", latent=LATENT, skip_v1=True),
        THREE,
        replace(THREE, skip_v1_own=1, family="qwen2"),
        replace(THREE, skip_v1_own=1, family="qwen3", num_layers=4, skip_v1_k_source=1),
        replace(CONFIG, skip_v1=True, skip_v1_own=3),
        replace(CONFIG, family="deepseek_v2", latent=LATENT, skip_v1=True, skip_v1_own=5),
    ],
    ids=[
        *("mha", "gqa-tied", "skip-mha", "skip-gqa-biased", "yoco", "yoco-qwen3", "qwen2-llama3"),
        *("skip-qwen3", "mla", "mla-wide-values", "skip-mla"),
        *("two-of-three", "one-of-three-qwen2", "yoco-one-of-three-qwen3", "three-of-four"),
        "mla-five-of-twelve",
    ],
)
def test_inference_gives_the_same_logits(config: ModelConfig, tmp_path: Path) -> None:
    model = loud_model(config)
    write_training_model(
        tmp_path, model, tokenizer=TOKENIZER.to_str(), eos_token_ids=(TOKENIZER.vocab_size - 1,)
    )
    loaded = load_model(str(tmp_path), fast=True)
    assert loaded.model.config == config
    assert loaded.eos_token_ids == (TOKENIZER.vocab_size - 1,)
    ids = torch.randint(0, config.vocab_size, (2, 70), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model(ids)
    for row in range(2):
        segment = Segment(loaded.model.make_cache(70), 0, 70)
        theirs = loaded.model.logits(loaded.model.forward(ids[row], [segment]))
        torch.testing.assert_close(ours[row], theirs, atol=1e-4, rtol=1e-4)
    assert ours.std() > 0.5, "logits too small to tell a right head from a wrong one"


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, skip_v1=True),
        replace(CONFIG, num_layers=4, skip_v1=True, skip_v1_k_source=1, family="qwen2"),
        replace(CONFIG, family="qwen3", skip_v1=True, tie_word_embeddings=True),
        replace(CONFIG, family="deepseek_v2", latent=WIDE_VALUES, skip_v1=True),
        THREE,
        replace(CONFIG, family="deepseek_v2", latent=LATENT, skip_v1=True, skip_v1_own=9),
    ],
    ids=["skip", "yoco-qwen2", "skip-qwen3-tied", "skip-mla", "two-of-three", "mla-nine-of-twelve"],
)
def test_reading_back_gives_every_bit(config: ModelConfig, tmp_path: Path) -> None:
    model = loud_model(config)
    notes = {"trained_tokens": 123}
    write_training_model(
        tmp_path, model, tokenizer=TOKENIZER.to_str(), eos_token_ids=(1, 2), notes=notes
    )
    back = read_training_model(tmp_path)
    assert back.model.config == model.config
    assert (back.eos_token_ids, back.trained_tokens) == ((1, 2), 123)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name]), name


def test_what_belongs_to_a_model_is_read_and_written_back(tmp_path: Path) -> None:
    companions = {
        "generation_config.json": '{"eos_token_id": [5, 6]}',
        "tokenizer_config.json": '{"eos_token": "<eos>"}',
        "chat_template.jinja": "{{ messages[0].content }}",
    }
    model = loud_model(CONFIG)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_training_model(
        tmp_path / "one",
        model,
        tokenizer=TOKENIZER.to_str(),
        eos_token_ids=(1,),
        companions=companions,
    )
    back = read_training_model(tmp_path / "one")
    assert back.companions == companions
    assert back.eos_token_ids == (5, 6, 1), "generation_config.json first, then the tokenizer"
    write_training_model(
        tmp_path / "two",
        back.model,
        tokenizer=back.tokenizer,
        eos_token_ids=back.eos_token_ids,
        companions=back.companions,
    )
    served = load_model(str(tmp_path / "two"), fast=True)
    assert served.eos_token_ids == (5, 6, 1)
    assert served.chat_template is not None


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, skip_v1=True, num_kv_heads=2),
        replace(CONFIG, num_layers=4, skip_v1=True, skip_v1_k_source=1, family="qwen3"),
        replace(CONFIG, family="deepseek_v2", latent=LATENT, skip_v1=True),
        THREE,
    ],
    ids=["skip-gqa", "yoco-qwen3", "skip-mla", "two-of-three"],
)
def test_every_weight_gets_a_gradient(config: ModelConfig) -> None:
    model = loud_model(config)
    ids = torch.arange(40)[None]
    torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:]).backward()  # type: ignore[no-untyped-call]
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_skip_v1_saves_the_upper_value_heads() -> None:
    plain, skip = TrainingModel(CONFIG), TrainingModel(replace(CONFIG, skip_v1=True))
    saved = (CONFIG.num_layers - 1) * CONFIG.hidden_size * CONFIG.num_kv_heads // 2 * 8
    assert plain.num_parameters() - skip.num_parameters() == saved


def test_same_seed_same_weights() -> None:
    one, two, other = TrainingModel(CONFIG, 1), TrainingModel(CONFIG, 1), TrainingModel(CONFIG, 2)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(one.state_dict()[name], two.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


def test_a_tokenizer_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    model = TrainingModel(replace(CONFIG, vocab_size=100))
    write_training_model(tmp_path, model, tokenizer=TOKENIZER.to_str(), eos_token_ids=())
    with pytest.raises(ModelError, match="do not belong together"):
        read_training_model(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "new"

    def fill_the_disk() -> None:
        with new_folder(place) as temporary:
            (temporary / "half").write_text("x")
            raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match="No space left"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []
    with new_folder(place) as temporary:
        (temporary / "whole").write_text("x")
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["whole"]
    with pytest.raises(ConfigError, match="exists already"), new_folder(place):
        pass


def test_whoever_may_read_a_new_file_may_read_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with new_folder(tmp_path / "m") as folder:
        write_training_model(
            folder, TrainingModel(CONFIG), tokenizer=TOKENIZER.to_str(), eos_token_ids=(1,)
        )
    modes = {path.stat().st_mode for path in [tmp_path / "ordinary", *(tmp_path / "m").iterdir()]}
    assert len(modes) == 1
