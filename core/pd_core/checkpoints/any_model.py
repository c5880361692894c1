"""From a path to a model's files, whatever their form."""

from pathlib import Path

from pd_core.checkpoints.gguf_model import GgufModel
from pd_core.checkpoints.model_directory import ModelDirectory, check_links
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.store.gguf_paths import gguf_of

__all__ = ["read_model_files"]


def read_model_files(path: Path) -> ModelFiles:
    """Read everything of a model except the weights' values.

    Args:
        path: a Hugging Face directory, a GGUF file, or a directory that holds one.

    Raises:
        ModelError: it is none of these, or it is broken or unsupported; the message says why.
    """
    if (file := gguf_of(path)) is None:
        return ModelDirectory(path)
    if file == path:
        return GgufModel(file, file.stem)
    check_links(path)
    return GgufModel(file, path.resolve().name)
