"""The files of a comparison: one model's weights in the form that each engine reads.

Made in a process of its own (`python -m pd_bench.engines.files`), whose memory is gone afterwards.
"""

import ctypes
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pd_bench.engines.contenders import FOUR_BITS
from pd_bench.engines.shapes import SHAPES
from pd_core.errors import ModelError

__all__ = ["Subject", "make_files"]

_GGUF = ".gguf"
_FILE_TYPES = {"Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What to make files of.

    Attributes:
        name: of a shape, or as `load_model` takes it.
        is_shape: which of the two.
        types: llama.cpp's types of weights to make.
        folder: where.
        seed: of random weights.
        four_bits: whether to make a directory of ours with weights of 4 bits.
    """

    name: str
    is_shape: bool
    types: tuple[str, ...]
    folder: str
    seed: int
    four_bits: bool = False


def make_files(subject: Subject) -> dict[str, str]:
    """Make the files, and return their paths: "ours", each type's, and that of 4 bits.

    Raises:
        ModelError: the model cannot be read, or llama.cpp cannot have it.
    """
    folder = Path(subject.folder)
    files = {"ours": subject.name}
    source = Path(subject.name).expanduser()
    if subject.is_shape:
        files["ours"] = str(folder / subject.name)
        source = folder / f"{subject.name}{_GGUF}"
        _make_random(subject, Path(files["ours"]), source)
    elif subject.types and not (source.is_file() and source.suffix == _GGUF):
        source = folder / f"model{_GGUF}"
        _convert(subject.name, source)
    for kind in subject.types:
        files[kind] = str(folder / f"{source.stem}.{kind}{_GGUF}")
        _quantise(source, Path(files[kind]), kind)
    if subject.four_bits:
        from pd_bench.engines.four_bits import write_four_bits

        files[FOUR_BITS] = str(folder / f"{source.stem}-4-bits")
        write_four_bits(files["ours"], Path(files[FOUR_BITS]))
    return files


def _make_random(subject: Subject, directory: Path, gguf: Path) -> None:
    import torch

    from pd_bench.engines.gguf_writing import write_gguf
    from pd_bench.kv.variants import build_model
    from pd_core.checkpoints.loading import save_model
    from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
    from pd_core.identity.numerics import unchecked
    from pd_core.models import ModelConfig

    if (directory / "model.safetensors").exists() and (gguf.exists() or not subject.types):
        return
    shape = SHAPES[subject.name]
    config = ModelConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head,
        max_context_tokens=shape.context,
        tie_word_embeddings=True,
    )
    model = build_model(config, unchecked("cpu"), subject.seed)
    half = {name: tensor.to(torch.float16) for name, tensor in model.tensors().items()}
    for name, tensor in model.tensors().items():
        tensor.copy_(half[name])  # the very numbers that both files hold
    save_model(directory, model, random_tiny_tokenizer())
    if subject.types:
        write_gguf(model, gguf)


def _convert(name: str, gguf: Path) -> None:
    from pd_bench.engines.gguf_writing import write_gguf
    from pd_core.checkpoints.loading import load_model

    if not gguf.exists():
        write_gguf(load_model(name, fast=True).float_model, gguf)


def _quantise(source: Path, made: Path, kind: str) -> None:
    from pd_device_client.engine.llama_cpp_library import library

    if made.exists():
        return
    loaded = library()
    params = loaded.api.llama_model_quantize_default_params()
    params.ftype = getattr(loaded.api, _FILE_TYPES[kind])
    params.allow_requantize = True
    loaded.forget_errors()
    part = made.with_suffix(".part")
    names = str(source).encode(), str(part).encode()
    if loaded.api.llama_model_quantize(*names, ctypes.byref(params)):
        raise ModelError(f"llama.cpp cannot make {kind} of {source}: {loaded.last_error}")
    part.rename(made)


def _main() -> None:
    from pd_core.errors import PdError
    from pd_core.host.torch_environment import prepare_environment

    prepare_environment()
    asked = json.loads(sys.argv[1])
    try:
        answer: dict[str, object] = {"files": make_files(Subject(**asked))}
    except PdError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
