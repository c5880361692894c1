"""Training models as Hugging Face directories: config.json, model.safetensors, tokenizer.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pd_core.checkpoints.hf_config import write_config
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.errors import ModelError
from pd_core.store.json_file import MOST_JSON_BYTES, read_json, read_text
from pd_core.store.model_names import model_directory
from pd_training.model.model import TrainingModel

__all__ = [
    "COMPANIONS",
    "TRAINING_FILE",
    "TrainingDirectory",
    "read_training_model",
    "write_training_model",
]

# How the weights were trained; from it uptraining knows how many tokens a model has seen.
TRAINING_FILE = "training.json"
# The model's other files; training does not change them.
COMPANIONS = (
    *("tokenizer_config.json", "special_tokens_map.json"),
    *("generation_config.json", "chat_template.jinja"),
)


@dataclass(frozen=True)
class TrainingDirectory:
    """A model directory opened for training.

    Attributes:
        model: float32, on the CPU.
        tokenizer: the content of tokenizer.json.
        eos_token_ids: as in the directory; may be empty.
        trained_tokens: tokens that it was trained on; None if not recorded.
        companions: content of the `COMPANIONS` that exist, by name.
    """

    model: TrainingModel
    tokenizer: str
    eos_token_ids: tuple[int, ...]
    trained_tokens: int | None
    companions: Mapping[str, str] = field(default_factory=dict)


def write_training_model(
    directory: Path,
    model: TrainingModel,
    *,
    tokenizer: str,
    eos_token_ids: tuple[int, ...],
    companions: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of a Hugging Face directory into an existing folder.

    Args:
        companions: further files by name, see `COMPANIONS`.
        dtype: dtype of the stored weights.
        notes: content of training.json; None: no such file.

    Raises:
        OSError: a file cannot be written; for example, the disk is full.
    """
    config = write_config(model.config) | {"torch_dtype": str(dtype).removeprefix("torch.")}
    if eos_token_ids:
        config["eos_token_id"] = list(eos_token_ids)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    for name, content in (companions or {}).items():
        (directory / name).write_text(content, encoding="utf-8")
    if notes is not None:
        text = json.dumps(dict(notes), indent=2) + "\n"
        (directory / TRAINING_FILE).write_text(text, encoding="utf-8")
    tensors: dict[str, Tensor] = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def read_training_model(
    directory: Path, *, max_context_tokens: int | None = None
) -> TrainingDirectory:
    """Open a Hugging Face directory for training.

    Args:
        directory: the checkpoint, or the shipped model's name.
        max_context_tokens: the context that the config declares instead of its own value.

    Raises:
        ModelError: as for `ModelDirectory` and `Checkpoint.load_into`.
    """
    directory = model_directory(str(directory))
    files = ModelDirectory(directory)
    config = files.config
    if max_context_tokens is not None:
        config = replace(config, max_context_tokens=max_context_tokens)
    model = TrainingModel(config)
    files.checkpoint.load_into(model.state_dict(), tied_head=config.tie_word_embeddings)
    return TrainingDirectory(
        model=model,
        tokenizer=files.tokenizer.to_str(),
        eos_token_ids=files.eos_token_ids,
        trained_tokens=_trained_tokens(directory),
        companions=_companions(directory),
    )


def _trained_tokens(directory: Path) -> int | None:
    file = directory / TRAINING_FILE
    value = read_json(file).get("trained_tokens") if file.exists() else None
    return value if type(value) is int else None


def _companions(directory: Path) -> dict[str, str]:
    found = {}
    for name in COMPANIONS:
        try:
            if (directory / name).is_file():
                found[name] = read_text(directory / name, MOST_JSON_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{directory / name} cannot be read: {error}") from error
    return found
