"""What was given for a model and is none: one sentence that says what it is and what to do."""

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pd_core.errors import ModelError
from pd_core.store.gguf_paths import gguf_files
from pd_core.store.model_store import PulledName
from pd_core.store.nearest_name import nearest_name

__all__ = ["refuse_pointer", "what_directory_is", "what_spec_is"]

_GGUF = b"GGUF"  # the first bytes of such a file
_POINTER = b"version https://git-lfs"  # what git leaves in a file's place without Git LFS
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MOST_ENTRIES = 10_000  # of a folder that are looked at


def what_spec_is(spec: str, known: Sequence[str]) -> str:
    """Return the sentence about what is neither a directory nor the name of a model that is here.

    Args:
        spec: what the user gave.
        known: the names of the models that are here.

    Raises:
        OSError, RuntimeError: the path cannot be looked at.
    """
    if not spec:
        return f"no model is named; known names: {', '.join(known)}, or give a directory"
    if "://" in spec:
        name = PulledName.parse("/".join(spec.partition("://")[2].rstrip("/").split("/")[1:3]))
        return (
            f"{spec!r} is an address, and models are not read over the network; get it with: "
            f"pd-device models pull {name or 'OWNER/MODEL'}"
        )
    path = Path(spec).expanduser()
    if os.path.lexists(path):
        return _what_file_is(path)
    name = PulledName.parse(spec)
    if "/" in spec and (name is None or path.parent.is_dir()):
        get = f"; or get it from a hub with: pd-device models pull {name}" if name else ""
        return f"there is no directory {spec!r}: {_nearest(path)}{get}"
    near = nearest_name(spec, [*known, *_entries(Path())])
    guess = f"; is it {near!r}?" if near else ""
    get = f"; get it from a hub with: pd-device models pull {name}" if name else ""
    return (
        f"{spec!r} is neither a directory nor the name of a model that is here{guess}; known "
        f"names: {', '.join(known)}{get}"
    )


def what_directory_is(directory: Path) -> str:
    """Return the sentence about a directory without a config.json."""
    names = _entries(directory)
    if gguf := gguf_files(directory):  # several, or one beside safetensors files
        return (
            f"{directory} is no Hugging Face directory and holds GGUF files; name the one to run: "
            f"{str(directory / gguf[0])!r}"
        )
    if "adapter_config.json" in names:
        return (
            f"{directory} holds an adapter (LoRA), which is not a model of its own; merge it into "
            "its base model (merge_and_unload of the library peft) and give that directory"
        )
    for pattern in ("snapshots/*/config.json", "*/config.json"):
        if below := sorted(directory.glob(pattern)):
            return f"{directory} has no config.json; is {str(below[-1].parent)!r} the model?"
    return (
        f"{directory / 'config.json'} does not exist; a model is a directory in Hugging Face's "
        "layout: config.json, tokenizer.json and safetensors files"
    )


def refuse_pointer(path: Path, begin: bytes) -> None:
    """Refuse what a clone without Git LFS has in the place of a large file.

    Args:
        path: the file.
        begin: its first bytes.

    Raises:
        ModelError: it is only a pointer to the file.
    """
    if begin.startswith(_POINTER):
        raise ModelError(
            f"{path} is only Git LFS's pointer to the file; get the files with `git lfs pull` in "
            "that directory, or the model with: pd-device models pull OWNER/MODEL"
        )


def _what_file_is(path: Path) -> str:
    """Return the sentence about something that exists and is not a directory."""
    if not path.is_file():
        return f"{str(path)!r} is neither a directory nor a file; give a model's directory"
    if _begins_with(path, _GGUF):
        return f"{str(path)!r} is a GGUF file, but not called so; give it a name that ends in .gguf"
    if path.suffix.lower() in _PICKLES:
        return (
            f"{str(path)!r} is a pickle file, which can run code and is never read; give a Hugging "
            "Face directory with safetensors files"
        )
    return f"{str(path)!r} is a file; give the directory it is in: {str(path.parent)!r}"


def _nearest(path: Path) -> str:
    """Say where a path goes wrong, and what may have been meant."""
    there = path
    while not there.is_dir() and there != there.parent:
        missing, there = there.name, there.parent
    folder = "this folder" if there == Path() else str(there)
    near = nearest_name(missing, _entries(there))
    guess = (
        f"; is it {str(there / near)!r}?"
        if near
        else "; check how it is written (names of models: pd-device models list)"
    )
    return f"{folder} has no {missing!r}{guess}"


def _entries(directory: Path) -> list[str]:
    """Return the names in a folder, sorted; none of one that cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in islice(entries, _MOST_ENTRIES))
    except OSError:
        return []


def _begins_with(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as opened:
            return opened.read(len(mark)) == mark
    except OSError:
        return False
