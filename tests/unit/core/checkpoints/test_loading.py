"""Hugging Face directories: written, read back, and refused when anything is wrong with them."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pd_core.checkpoints import checkpoint, loading
from pd_core.checkpoints.hf_config import read_config, write_config
from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import (
    LoadedModel,
    load_model,
    read_fingerprints,
    save_model,
)
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import EngineError, ModelError
from pd_core.models import CausalLM, ModelConfig, Segment
from pd_core.models.numerics_probe import probe
from pd_core.models.rope_scaling import RopeScaling

CONFIG = ModelConfig(
    vocab_size=1030,  # six rows more than the tokenizer has ids
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_context_tokens=512,
    rope_theta=20000.0,
    skip_v1=True,
)
IDS = torch.arange(2, 40)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(directory: Path, config: ModelConfig = CONFIG) -> CausalLM:
    model = CausalLM(config, probe())
    fill_weights(model, random_tiny_tokenizer())
    save_model(directory, model, random_tiny_tokenizer(), eos_token_ids=(1,))
    return model


def logits(model: CausalLM) -> torch.Tensor:
    hidden = model.forward(IDS, [Segment(model.make_cache(len(IDS)), 0, len(IDS))])
    return model.logits(hidden)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, skip_v1=False, tie_word_embeddings=True),
        replace(CONFIG, attention_bias=True, mlp_bias=True, num_kv_heads=4),
        replace(CONFIG, family="qwen2", skip_v1=False, rope_scaling=RopeScaling("linear", 2.0)),
        replace(CONFIG, family="qwen2"),
        replace(CONFIG, family="qwen3", attention_bias=True, skip_v1_k_source=0),
        replace(CONFIG, rope_scaling=RopeScaling("llama3", 8.0, 1.5, 5.0, 128)),
    ],
    ids=["skip", "plain-tied", "biased-mha", "qwen2", "skip-qwen2", "yoco-qwen3", "llama3"],
)
def test_a_model_survives_the_disk(config: ModelConfig, tmp_path: Path) -> None:
    model = write(tmp_path / "some-model", config)
    loaded = load_model(str(tmp_path / "some-model"))
    assert loaded.model.config == config
    assert loaded.name == "some-model"
    assert loaded.eos_token_ids == (1,)
    got = logits(loaded.float_model)
    assert torch.equal(got[:, :1024], logits(model)[:, :1024])
    assert (got[:, 1024:] == -torch.inf).all(), "rows past the tokenizer's ids are masked"


def test_skip_v1_layout_on_disk(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    assert tensors["model.layers.0.self_attn.v_proj.weight"].shape == (16, 32)
    assert tensors["model.layers.1.self_attn.v_proj.weight"].shape == (8, 32)
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (16, 32)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["SkipV1LlamaForCausalLM"]
    assert config["skip_v1"] is True
    assert config["skip_v1_k_source"] is None


def shard(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    weight_map = {n: f"model-{i % 2 + 1:05}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "model.safetensors").unlink()


def test_shards_are_the_same_model(directory: Path) -> None:
    whole = load_model(str(directory))
    shard(directory)
    sharded = load_model(str(directory))
    assert torch.equal(logits(sharded.float_model), logits(whole.float_model))
    assert sharded.fingerprints == whole.fingerprints


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text()) | changes
        (directory / "config.json").write_text(json.dumps(config))

    return edit


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return edit


def only_pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def truncate(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:-100])


def huge_header(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def overlap(directory: Path) -> None:
    """Let the last tensor begin where the one before it does."""
    path = directory / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    spans = sorted((v["data_offsets"], k) for k, v in header.items() if k != "__metadata__")
    equal = [(a, b) for a, b in pairwise(spans) if a[0][1] - a[0][0] == b[0][1] - b[0][0]]
    header[equal[0][1][1]]["data_offsets"] = equal[0][0][0]
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[8 + length :])


def link_out(name: str) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        outside = directory.parent / f"outside-{name}"
        (directory / name).rename(outside)
        (directory / name).symlink_to(outside)

    return edit


def lose_a_shard(directory: Path) -> None:
    shard(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()


def escape(directory: Path) -> None:
    shard(directory)
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan


NORM = "model.norm.weight"
ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 100,
}
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle only": (only_pickle, "only pickle files"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "no config": (lambda d: (d / "config.json").unlink(), r"config\.json does not exist"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), r"tokenizer\.json does not exist"),
    "broken config": (lambda d: (d / "config.json").write_text("{"), "as JSON"),
    "deep config": (
        lambda d: (d / "config.json").write_text("[" * 100_000),
        "as JSON",
    ),
    "list config": (lambda d: (d / "config.json").write_text("[]"), "not a JSON object"),
    "truncated": (truncate, "truncated or not a safetensors file"),
    "huge header": (huge_header, "truncated or not a safetensors file"),
    "overlapping": (overlap, "not a safetensors file"),
    "linked weights": (link_out("model.safetensors"), "link out of the model's directory"),
    "linked config": (link_out("config.json"), "link out of the model's directory"),
    "linked tokenizer": (link_out("tokenizer.json"), "link out of the model's directory"),
    "lost shard": (lose_a_shard, "00002-of-00002.safetensors does not exist"),
    "escaping shard": (escape, "not a file beside it"),
    "missing": (edit_tensors(lambda t: t.pop(NORM)), f"lacks {NORM}"),
    "extra": (edit_tensors(lambda t: t.update(x=torch.zeros(1))), "no place for: x"),
    "wrong shape": (
        edit_tensors(lambda t: t.update({NORM: torch.ones(31)})),
        r"shape \[31\]; the model's settings ask for \[32\]",
    ),
    "wrong type": (
        edit_tensors(lambda t: t.update({NORM: torch.ones(32, dtype=torch.int8)})),
        "type I8, which is not supported",
    ),
    "nan": (edit_tensors(set_nan), "up_proj.weight holds NaN"),
    "full v": (
        edit_tensors(
            lambda t: t.update({"model.layers.1.self_attn.v_proj.weight": torch.zeros(16, 32)})
        ),
        "v_proj.weight has shape",
    ),
    "architecture": (edit_config(architectures=["GPT2LMHeadModel"]), "architectures is"),
    "contradiction": (edit_config(architectures=["LlamaForCausalLM"]), "skip_v1 is true"),
    "k source": (edit_config(skip_v1_k_source=1), "last of the lower half"),
    "text k source": (edit_config(skip_v1_k_source="1"), "skip_v1_k_source is '1'"),
    "k source, odd": (edit_config(skip_v1_k_source=1, num_hidden_layers=3), "even number"),
    "k source, plain": (
        edit_config(skip_v1_k_source=0, skip_v1=False, architectures=["LlamaForCausalLM"]),
        "skip_v1 is false",
    ),
    "k source, keys stored": (edit_config(skip_v1_k_source=0), "no place for"),
    "other family": (edit_config(architectures=["SkipV1Qwen3ForCausalLM"]), "lacks .*k_norm"),
    "remote code": (edit_config(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "window": (edit_config(sliding_window=511), "sliding_window of 511"),
    "qwen window": (
        edit_config(
            architectures=["SkipV1Qwen2ForCausalLM"], use_sliding_window=True, sliding_window=64
        ),
        "sliding_window of 64",
    ),
    "odd heads": (
        edit_config(num_key_value_heads=3, num_attention_heads=3),
        "half of the KV heads, and 3 is not even; say how many in skip_v1_own, from 1 to 2",
    ),
    "one head": (edit_config(num_key_value_heads=1), "there is 1 only"),
    "no own": (
        edit_config(skip_v1_own=0),
        "skip_v1_own is 0 of 2 KV heads; it must be from 1 to 1",
    ),
    "all own": (edit_config(skip_v1_own=2), "skip_v1_own is 2 of 2 KV heads"),
    "negative own": (edit_config(skip_v1_own=-1), "skip_v1_own is -1"),
    "text own": (edit_config(skip_v1_own="1"), "skip_v1_own is '1'"),
    "own share": (edit_config(skip_v1_own=0.5), "skip_v1_own is 0.5; it must be a whole number"),
    "own, plain": (
        edit_config(skip_v1_own=1, skip_v1=False, architectures=["LlamaForCausalLM"]),
        "skip_v1_own is set, but skip_v1 is false",
    ),
    "uneven groups": (edit_config(num_key_value_heads=3), "cannot share"),
    "odd head_dim": (edit_config(head_dim=7), "even"),
    "no layers": (edit_config(num_hidden_layers=0), "num_layers is 0"),
    "text size": (edit_config(hidden_size="32"), "whole number"),
    "no size": (edit_config(vocab_size=None), "vocab_size is None"),
    "bad eps": (edit_config(rms_norm_eps=-1), "must be from 1e-20 to 1"),
    "text flag": (edit_config(attention_bias="no"), "true or false"),
    "yarn": (edit_config(rope_parameters={"rope_type": "yarn", "factor": 4}), "'yarn'"),
    "old scaling": (
        edit_config(rope_parameters=None, rope_scaling={"type": "dynamic", "factor": 2.0}),
        "'dynamic'",
    ),
    "no factor": (edit_config(rope_parameters={"rope_type": "linear"}), "factor is None"),
    "small factor": (
        edit_config(rope_parameters={"rope_type": "linear", "factor": 0.5}),
        "must be 1 or more",
    ),
    "crossed factors": (
        edit_config(rope_parameters=ROPE | {"low_freq_factor": 8.0}),
        "below high_freq_factor",
    ),
    "partial rope": (edit_config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    "rope text": (edit_config(rope_parameters="plain"), "must be an object"),
    "activation": (edit_config(hidden_act="gelu"), "gelu"),
    "quantised": (edit_config(quantization_config={"bits": 4}), "quantised .*4 bits"),
    "small vocabulary": (edit_config(vocab_size=1000), "do not belong together"),
    "eos": (edit_config(eos_token_id=1024), "eos_token_id 1024"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_broken_directories_are_refused(case: str, directory: Path) -> None:
    breaks, message = BROKEN[case]
    breaks(directory)
    with pytest.raises(ModelError, match=message) as loading:
        load_model(str(directory))
    with pytest.raises(ModelError, match=message) as inspecting:
        inspect_model(directory)
    # The library names any one of two tensors that overlap, after a backquote.
    said, seen = (str(error.value).partition("`")[0] for error in (loading, inspecting))
    assert said == seen


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m", replace(CONFIG, tie_word_embeddings=True))
    embedding = load_file(tmp_path / "m" / "model.safetensors")["model.embed_tokens.weight"]
    edit_tensors(lambda t: t.update({"lm_head.weight": embedding.clone()}))(tmp_path / "m")
    assert load_model(str(tmp_path / "m")).fingerprints.weights
    edit_tensors(lambda t: t.update({"lm_head.weight": embedding + 1}))(tmp_path / "m")
    with pytest.raises(ModelError, match="is not the embedding"):
        load_model(str(tmp_path / "m"))


def keep_only_the_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")


def test_a_tied_model_may_store_its_output_layer_alone(tmp_path: Path) -> None:
    write(tmp_path / "m", replace(CONFIG, tie_word_embeddings=True))
    before = load_model(str(tmp_path / "m"))
    edit_tensors(keep_only_the_head)(tmp_path / "m")
    loaded = load_model(str(tmp_path / "m"))
    assert loaded.fingerprints == before.fingerprints, "it is the same model"
    assert torch.equal(logits(loaded.float_model), logits(before.float_model))
    assert inspect_model(tmp_path / "m").num_parameters == sum(
        t.numel() for t in before.float_model.tensors().values()
    )


def test_an_untied_model_needs_its_embedding(directory: Path) -> None:
    edit_tensors(lambda t: t.pop("model.embed_tokens.weight"))(directory)
    with pytest.raises(ModelError, match=r"lacks model\.embed_tokens\.weight"):
        load_model(str(directory))


def test_links_inside_and_in_the_cache_of_hugging_face_are_followed(
    directory: Path, tmp_path: Path
) -> None:
    want = load_model(str(directory)).fingerprints
    (directory / "model.safetensors").rename(directory / "weights")
    (directory / "model.safetensors").symlink_to("weights")
    assert load_model(str(directory)).fingerprints == want
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123"
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (blobs / name[:4]).write_bytes((directory / name).read_bytes())
        (snapshot / name).symlink_to(Path("../../blobs") / name[:4])
    assert load_model(str(snapshot)).fingerprints == want


def test_a_failed_write_leaves_the_older_checkpoint_whole(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, files = load_model(str(directory)).fingerprints, set(directory.iterdir())

    def full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pd_core.checkpoints.checkpoint.save_file", full)
    with pytest.raises(ModelError, match="No space left"):
        write(directory)
    assert load_model(str(directory)).fingerprints == want
    assert set(directory.iterdir()) == files


def test_unknown_specs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no directory"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="unknown dtype"):
        load_model("random-tiny", dtype="int3")


def test_both_ways_to_write_rope_are_read() -> None:
    base = write_config(CONFIG)
    del base["rope_parameters"]
    assert read_config(base).rope_theta == 20000.0
    del base["rope_theta"]
    assert read_config(base).rope_theta == 10000.0
    new = base | {"rope_parameters": {"rope_type": "default", "rope_theta": 7.5}}
    assert read_config(new).rope_theta == 7.5

    old = base | {"rope_scaling": ROPE, "rope_theta": 3.0}
    assert read_config(old).rope_theta == 3.0
    assert read_config(old).rope_scaling == RopeScaling("llama3", 8.0, 1.0, 4.0, 100)
    assert read_config(base | {"rope_parameters": ROPE}).rope_scaling is not None
    unsaid = {k: v for k, v in ROPE.items() if not k.startswith("original")}
    scaling = read_config(base | {"rope_scaling": unsaid}).rope_scaling
    assert scaling is not None
    assert scaling.original_context_tokens == base["max_position_embeddings"]


def test_several_ids_may_end_a_sequence(directory: Path) -> None:
    (directory / "generation_config.json").write_text('{"eos_token_id": [5, 1, 5]}')
    assert load_model(str(directory)).eos_token_ids == (5, 1)
    (directory / "generation_config.json").write_text('{"temperature": 0.6}')
    assert load_model(str(directory)).eos_token_ids == (1,)
    edit_config(eos_token_id=None)(directory)
    assert load_model(str(directory)).eos_token_ids == ()
    (directory / "tokenizer_config.json").write_text('{"eos_token": {"content": "<eos>"}}')
    assert load_model(str(directory)).eos_token_ids == (1,)


def test_the_tokenizers_end_of_sequence_is_one_too(directory: Path) -> None:
    (directory / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    (directory / "special_tokens_map.json").write_text('{"eos_token": "<eos>"}')
    assert load_model(str(directory)).eos_token_ids == (5, 6, 1)
    (directory / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert load_model(str(directory)).eos_token_ids == (1,)
    (directory / "special_tokens_map.json").write_text('{"eos_token": "no such token"}')
    assert load_model(str(directory)).eos_token_ids == (1,)


def test_the_chat_template_comes_with_the_model(directory: Path, tmp_path: Path) -> None:
    assert load_model(str(directory)).chat_template is None
    settings = TokenizerConfig({"eos_token": "<eos>"}, "{{ messages[0].content }}{{ eos_token }}")
    model = CausalLM(CONFIG, probe())
    fill_weights(model, random_tiny_tokenizer())
    save_model(tmp_path / "chat", model, random_tiny_tokenizer(), tokenizer_config=settings)
    loaded = load_model(str(tmp_path / "chat"))
    assert loaded.chat_template is not None
    assert loaded.fingerprints.chat_template == loaded.chat_template.digest != ""
    assert loaded.chat_template.render([{"role": "user", "content": "hi"}]) == "hi<eos>"
    (tmp_path / "chat" / "chat_template.jinja").write_text("{% if %}")
    broken = load_model(str(tmp_path / "chat")).chat_template  # a server never needs it
    assert broken is not None
    with pytest.raises(ModelError, match="chat template is broken"):
        broken.check()


def test_an_editor_s_byte_order_mark_is_no_part_of_a_model(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (directory / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    before = load_model(str(directory))
    texts = [*directory.glob("*.json"), *directory.glob("*.jinja")]
    for file in texts:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    after = load_model(str(directory))
    assert len(texts) >= 4
    assert after.eos_token_ids == before.eos_token_ids
    assert after.chat_template is not None
    assert after.chat_template.render([{"role": "user", "content": "hi"}]) == "hi"
    assert after.fingerprints == before.fingerprints


def test_windows_that_hide_nothing_are_accepted() -> None:
    plain = replace(CONFIG, skip_v1=False)
    assert read_config(write_config(plain) | {"sliding_window": 512}) == plain
    qwen = replace(plain, family="qwen2")
    off = {"use_sliding_window": False, "sliding_window": 16}
    assert read_config(write_config(qwen) | off) == qwen
    on = {"use_sliding_window": True, "sliding_window": 512}
    assert read_config(write_config(qwen) | on) == qwen


def test_keys_that_are_missing_mean_what_they_mean_to_transformers() -> None:
    base = write_config(replace(CONFIG, skip_v1=False))
    for key in ("num_key_value_heads", "head_dim", "max_position_embeddings"):
        del base[key]
    llama = read_config(base)
    assert (llama.num_kv_heads, llama.head_dim, llama.max_context_tokens) == (4, 8, 2048)
    qwen = base | {"architectures": ["Qwen3ForCausalLM"], "num_attention_heads": 64}
    qwen3 = read_config(qwen)
    assert (qwen3.num_kv_heads, qwen3.head_dim, qwen3.max_context_tokens) == (32, 128, 32768)
    named = {k: v for k, v in base.items() if k != "architectures"} | {"model_type": "qwen2"}
    assert read_config(named | {"num_key_value_heads": None}).qkv_bias


def test_fingerprints_follow_content_only(directory: Path, tmp_path: Path) -> None:
    first = load_model(str(directory)).fingerprints
    assert load_model(str(directory)).fingerprints == first, "from the cache"
    (tmp_path / "cache" / "pd-device" / "weights.json").write_text("broken")
    assert load_model(str(directory)).fingerprints == first, "computed anew"
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    template = load_model(str(directory)).fingerprints
    assert template.chat_template
    assert replace(template, chat_template="") == first
    edit_config(max_position_embeddings=128)(directory)
    assert load_model(str(directory)).fingerprints.weights == first.weights
    edit_config(rope_parameters={"rope_theta": 5.0})(directory)
    theta = load_model(str(directory)).fingerprints.weights
    edit_tensors(lambda t: t[NORM].mul_(2))(directory)
    assert len({first.weights, theta, load_model(str(directory)).fingerprints.weights}) == 3


@pytest.mark.parametrize("numerics", ["float32", "integer"])
def test_the_first_load_digests_what_it_reads(
    directory: Path, monkeypatch: pytest.MonkeyPatch, numerics: str
) -> None:
    expected = read_fingerprints(ModelDirectory(directory), "").weights
    (directory / "model.safetensors").touch()  # what is known was of another time

    def read_again(*_: object) -> str:
        raise AssertionError("the files are read twice")

    monkeypatch.setattr(loading, "weights_digest", read_again)
    assert load_model(str(directory), numerics=numerics).fingerprints.weights == expected


def test_a_tensor_in_parts_is_the_whole(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ModelDirectory(directory)
    whole = dict(files.checkpoint.stored(files.shapes))
    rounded = {name: files.checkpoint.integers(name) for name in whole if whole[name].dim() == 2}
    monkeypatch.setattr(checkpoint, "_PART_BYTES", 1000)
    for name, expected in whole.items():
        parts = list(files.checkpoint.parts(name))
        assert (len(parts) > 1) == (expected.dim() == 2 and expected.nbytes > 1000)
        assert torch.equal(torch.cat(parts), expected)
    for name, weight in rounded.items():
        assert torch.equal(files.checkpoint.integers(name).codes, weight.codes)
    edit_tensors(lambda t: t["model.embed_tokens.weight"][-1].fill_(torch.inf))(directory)
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_model(str(directory), numerics="integer")


def test_other_weights_of_the_same_size_and_time_are_not_taken_for_the_old_ones(
    directory: Path,
) -> None:
    """Some installers give every file of every version one modification time."""
    weights = directory / "model.safetensors"
    edit_tensors(len)(directory)  # both files by the same writer
    os.utime(weights, (1_580_601_600, 1_580_601_600))
    first, before = load_model(str(directory)).fingerprints, weights.stat()
    edit_tensors(lambda t: t[NORM].mul_(2))(directory)
    os.utime(weights, (1_580_601_600, 1_580_601_600))
    after = weights.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_model(str(directory)).fingerprints.weights != first.weights


def test_whoever_may_read_a_new_file_may_read_the_weights(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write(tmp_path / "m")
    modes = {path.stat().st_mode for path in [tmp_path / "ordinary", *(tmp_path / "m").iterdir()]}
    assert len(modes) == 1


def test_random_tiny_is_the_same_everywhere(tmp_path: Path) -> None:
    loaded: LoadedModel = load_model("random-tiny")
    save_model(
        tmp_path / "t", loaded.float_model, loaded.tokenizer, eos_token_ids=loaded.eos_token_ids
    )
    again = load_model(str(tmp_path / "t"))
    assert again.fingerprints == loaded.fingerprints
    assert again.eos_token_ids == loaded.eos_token_ids == (1,)
    # Made of integers: any machine must come to this digest.
    assert loaded.fingerprints.weights.startswith("54ffeda792f895d6")


def test_other_dtypes_run_without_a_promise() -> None:
    loaded = load_model("random-tiny", dtype="bfloat16")
    assert not loaded.numerics.reproducible
    assert loaded.fingerprints.numerics_id.startswith("bfloat16/torch/")
    assert loaded.fingerprints.weights == load_model("random-tiny").fingerprints.weights
    rows = logits(loaded.float_model)
    assert rows.dtype == torch.float32
    assert torch.isfinite(rows).all()


def test_a_full_cache_is_an_error_and_not_a_wrong_answer() -> None:
    model = load_model("random-tiny").model
    cache = model.make_cache(512)
    with pytest.raises(EngineError, match="reserve more"):
        model.forward(torch.zeros(2, dtype=torch.int64), [Segment(cache, 511, 2)])


def test_an_empty_batch_is_no_work() -> None:
    model = load_model("random-tiny").model
    assert model.forward(torch.zeros(0, dtype=torch.int64), []).shape == (0, 128)
