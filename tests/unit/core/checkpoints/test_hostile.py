"""Directories made to hang, exhaust or mislead their reader: refused at once, with the reason."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.errors import ModelError
from pd_core.models import CausalLM, ModelConfig
from pd_core.models.numerics_probe import probe

CONFIG = ModelConfig(
    vocab_size=1024,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    max_context_tokens=512,
)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = CausalLM(CONFIG, probe())
    fill_weights(model, random_tiny_tokenizer())
    save_model(tmp_path / "model", model, random_tiny_tokenizer())
    return tmp_path / "model"


def config(**changes: Any) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        content = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(content))

    return edit


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


def indexed(weight_map: object) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return edit


def linked_shard(directory: Path) -> None:
    """Name a link that leads out as a shard; its suffix is none that links are looked at for."""
    names = load_file(directory / "model.safetensors").keys()
    (directory / "model.safetensors").rename(directory.parent / "outside")
    (directory / "weights").symlink_to(directory.parent / "outside")
    (directory / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "weights")}))


def beside(kind: str) -> Callable[[Path], object]:
    name = f"model.layers.0.mlp.up_proj.{kind}"
    return tensors(lambda t: t.update({name: torch.zeros(4)}))


def circle(name: str) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(name)

    return edit


def pipe(name: str) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)

    return edit


def templates(name: object) -> str:
    return json.dumps({"chat_template": [{"name": name, "template": "x"}, {"name": "default"}, 3]})


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        file = directory / "model.safetensors"
        stored = load_file(file)
        change(stored)
        save_file(stored, file)

    return edit


def endless(name: str) -> Callable[[Path], object]:
    """Make a file of a terabyte that takes no room on the disk."""

    def edit(directory: Path) -> None:
        with (directory / name).open("wb") as file:
            file.truncate(2**40)

    return edit


def sparse(directory: Path) -> None:
    """Announce eight terabytes of weights in a file that takes no room on the disk."""
    size = 2**43
    entry = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def many_tensors(directory: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor number {i}": empty for i in range(120_000)}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


INF, NAN = float("inf"), float("nan")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 100,
}
SAMPLED = '{"do_sample": true, "%s": %s}'
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    # Sizes that nothing in the files stands behind.
    "layers": (
        config(num_hidden_layers=1000),
        "name 1000 layers, but the checkpoint has weights of 2",
    ),
    "vocabulary": (config(vocab_size=2**24 - 1), "settings ask for [16777215, 16]"),
    "mlp": (config(intermediate_size=2**24 - 1), "settings ask for [16, 16777215]"),
    "sizes without end": (
        config(vocab_size=2_000_000_000, hidden_size=2_000_000_000),
        "it must be 1 or more, and below 16777216",
    ),
    "heads without end": (config(num_attention_heads=2**30), "num_heads is 1073741824"),
    "a model of layers": (config(num_hidden_layers=2**10), "num_layers is 1024; it must be 1 or"),
    "negative size": (config(vocab_size=-1), "vocab_size is -1; it must be 1 or more"),
    "no theta": (config(rope_theta=0, rope_parameters={}), "rope_theta is 0.0; it must be from 1"),
    "endless theta": (config(rope_parameters={"rope_theta": INF}), "rope_theta is inf; it must"),
    "theta beyond float32": (config(rope_parameters={"rope_theta": 1e300}), "rope_theta is 1e+300"),
    "theta that is too small": (config(rope_parameters={"rope_theta": 1e-9}), "theta is 1e-09; it"),
    "NaN eps": (config(rms_norm_eps=NAN), "rms_norm_eps is nan; it must be from 1e-20 to 1"),
    "eps beyond float32": (config(rms_norm_eps=1e300), "rms_norm_eps is 1e+300"),
    "eps of nothing": (config(rms_norm_eps=1e-300), "rms_norm_eps is 1e-300"),
    "endless factor": (
        config(rope_parameters={"rope_type": "linear", "factor": 1e300}),
        "RoPE's factor is 1e+300; it must be 1 or more, and at most",
    ),
    "original context": (
        config(rope_parameters=LLAMA3 | {"original_max_position_embeddings": 10**400}),
        "original_max_position_embeddings is 1000",
    ),
    "factors that touch": (
        config(rope_parameters=LLAMA3 | {"low_freq_factor": 5e-324, "high_freq_factor": 1e-323}),
        "RoPE's low_freq_factor 5e-324 must be positive and below",
    ),
    "a size of megabytes": (config(vocab_size="9" * 10**6), "vocab_size is '999999999999...999"),
    "config without end": (endless("config.json"), "config.json is larger than 32 MiB"),
    "settings without end": (endless("tokenizer_config.json"), "is larger than 32 MiB"),
    "template without end": (endless("chat_template.jinja"), "is larger than 4 MiB"),
    "tokenizer without end": (endless("tokenizer.json"), "is larger than 64 MiB"),
    # Weights that were made smaller.
    "gptq": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "the weights are quantised (quantization_config, 'gptq', 4 bits), which is not supported; "
        "use the model that they were made from",
    ),
    "fp8": (config(quantization_config={"quant_method": "fp8"}), "quantised (quantization_config,"),
    "mlx": (config(quantization={"group_size": 64, "bits": 4}), "quantised (quantization, 4 bits)"),
    "quantised, unsaid": (
        tensors(
            lambda t: t.update(
                {"model.layers.0.mlp.up_proj.qweight": torch.ones(1, dtype=torch.int32)}
            )
        ),
        "the weights are quantised (there is model.layers.0.mlp.up_proj.qweight)",
    ),
    "fp8, unsaid": (
        tensors(lambda t: t.update({"model.norm.weight": torch.ones(16).to(torch.float8_e4m3fn)})),
        "tensor model.norm.weight has type F8_E4M3, which is not supported; supported are F32",
    ),
    "a header of tensors": (
        many_tensors,
        "headers of the weights' files have 9 MiB up to model.sa",
    ),
    "weights without end": (sparse, "cannot be mapped into memory"),
    "long number": (config(rms_norm_eps=10**400), "rms_norm_eps is too large a number"),
    # Links and files that are none.
    "linked shard": (linked_shard, "names 'weights', which is no .safetensors file"),
    "links in a circle": (circle("config.json"), "cannot be read: Symlink loop from"),
    "a link to itself beside the files": (circle("merges.json"), "cannot be read: Symlink loop"),
    "weights from a pipe": (pipe("model.safetensors"), "neither a file nor a folder"),
    "tokenizer from a pipe": (pipe("tokenizer.json"), "neither a file nor a folder"),
    "GGUF beside a config": (
        lambda d: (d / "model.safetensors").rename(d / "model.Q4_0.gguf"),
        "model.Q4_0.gguf: it does not begin with GGUF",
    ),
    "llm.int8": (beside("SCB"), "the weights are quantised (there is model.layers.0.mlp.up_proj.S"),
    "HQQ": (beside("W_q"), "the weights are quantised (there is model.layers.0.mlp.up_proj.W_q)"),
    # What a clone without Git LFS leaves.
    "a pointer to the weights": (
        written("model.safetensors", POINTER),
        "model.safetensors is only Git",
    ),
    "a pointer to the tokenizer": (
        written("tokenizer.json", POINTER),
        "tokenizer.json is only Git",
    ),
    "a pointer to the config": (written("config.json", POINTER), "config.json is only Git LFS's"),
    # Values of a type that nobody expects.
    "shards as lists": (indexed({"a": ["b.safetensors"]}), "names ['b.safetensors'], which is not"),
    "a shard that no system can name": (indexed({"a": "a\0.safetensors"}), "is truncated or not"),
    "rope by layer": (
        config(rope_parameters={"sliding_attention": {"rope_theta": 10.0}}),
        "gives 'sliding_attention' a RoPE of its own",
    ),
    "endless top_k": (
        written("generation_config.json", SAMPLED % ("top_k", "Infinity")),
        "top_k is inf; it must be a whole number",
    ),
    "half a token": (
        written("generation_config.json", SAMPLED % ("dry_allowed_length", "2.5")),
        "dry_allowed_length is 2.5; it must be a whole number",
    ),
    "top_p too long": (
        written("generation_config.json", SAMPLED % ("top_p", "1" + "0" * 400)),
        "top_p is too large a number",
    ),
    "only another tokenizer": (
        lambda d: (d / "tokenizer.json").rename(d / "tokenizer.model"),
        "tokenizer.json does not exist, and no other form of tokenizer is read",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_made_to_harm_is_refused_at_once(
    case: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object, **__: object) -> None:
        raise AssertionError("memory was asked for")

    monkeypatch.setattr("pd_core.checkpoints.loading.CausalLM", built)
    edit, message = HOSTILE[case]
    edit(directory)
    with pytest.raises(ModelError, match=re.escape(message)):
        inspect_model(directory)
    with pytest.raises(ModelError, match=re.escape(message)):
        load_model(str(directory))


def test_memory_that_is_not_there_is_said(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        torch.empty(2**62, dtype=torch.uint8)

    monkeypatch.setattr("pd_core.checkpoints.loading.CausalLM", refuse)
    with pytest.raises(ModelError, match=r"no memory on cpu for the weights of model \(1 MiB as"):
        load_model(str(directory))


def test_named_templates_of_strange_names_are_no_reason_to_fail(directory: Path) -> None:
    (directory / "tokenizer_config.json").write_text(templates(["a", "list"]))
    assert not inspect_model(directory).has_chat_template


def test_a_shard_need_not_be_named_by_the_library(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    save_file(tensors, directory / "part.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "part.safetensors")}
    (directory / INDEX).write_text(json.dumps(index))
    assert inspect_model(directory).num_parameters == sum(t.numel() for t in tensors.values())
