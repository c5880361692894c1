"""What is given for a model and is none: each thing has its own sentence, with what to do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.errors import ModelError
from pd_core.store.model_names import model_directory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "pulled"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "models" / "qwen3-base").mkdir(parents=True)
    (tmp_path / "home" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file(name: str, content: bytes = b"") -> Callable[[Path], object]:
    def make(here: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)

    return make


SPECS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "gguf": (
        file("m.gguf"),
        "m.gguf",
        "is a model in GGUF, which pd-server (--engine torch) and p",
    ),
    "gguf by its bytes": (file("m", b"GGUF\3\0\0\0"), "./m", "give it a name that ends in .gguf"),
    "pickle": (file("a/m.bin"), "a/m.bin", "can run code and is never read; give a Hugging Face"),
    "weights": (file("a/x.safetensors"), "a/x.safetensors", "give the directory it is in: 'a'"),
    "mistyped end": (file("x"), "./models/qwen3-bse", "is it 'models/qwen3-base'?"),
    "mistyped, alone": (file("x"), "./modles", "no 'modles'; is it 'models'?"),
    "mistyped start": (file("x"), "model/qwen3-base/", "no 'model'; is it 'models'?"),
    "mistyped middle": (file("x"), "./modles/qwen3-base", "no 'modles'; is it 'models'?"),
    "absolute": (file("x"), "/nowhere/at/all", "/ has no 'nowhere'; check how it is written"),
    "mistyped name": (file("x"), "skipv1-pyhton-5m", "is it 'skipv1-python-5m'?"),
    "of a hub": (file("x"), "Qwen/Qwen3-0.6B", "with: pd-device models pull Qwen/Qwen3-0.6B"),
    "address": (
        file("x"),
        "https://huggingface.co/Qwen/Qwen3-0.6B/tree/main",
        "pd-device models pull Qwen/Qwen3-0.6B",
    ),
    "nothing": (file("x"), "", "no model is named; known names: skipv1-python-5m"),
    "too long": (file("x"), "./" + "a" * 5000, "cannot be looked at: "),
    "a byte that no path has": (file("x"), "./a\0b", "has no 'a\\x00b'"),
    "no such user": (file("x"), "~nobody-of-this-name/m", "cannot be looked at: "),
    "in a file": (file("x"), "./x/y", "has no 'x'"),
}


@pytest.mark.parametrize("case", SPECS)
def test_what_is_no_directory_is_said_with_a_mend(case: str, here: Path) -> None:
    make, spec, words = SPECS[case]
    make(here)
    with pytest.raises(ModelError, match=re.escape(words)):
        model_directory(spec)


DIRECTORIES: dict[str, tuple[str, str]] = {
    "gguf": ("q4.gguf", "is a model in GGUF, which pd-server"),
    "adapter": ("adapter_config.json", "holds an adapter (LoRA)"),
    "cache of the hub": ("snapshots/0123/config.json", "snapshots/0123' the model?"),
    "one below": ("inner/config.json", "inner' the model?"),
    "nothing": ("readme", "config.json does not exist; a model is a directory in Hugging Face's"),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_what_a_directory_without_a_config_is(case: str, here: Path) -> None:
    name, words = DIRECTORIES[case]
    file(f"d/{name}")(here)
    with pytest.raises(ModelError, match=re.escape(words)):
        ModelDirectory(model_directory(str(here / "d")))


def test_a_home_is_found_without_a_shell(here: Path) -> None:
    assert model_directory("~/tiny") == here / "home" / "tiny"
