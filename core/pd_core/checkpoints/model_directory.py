"""A Hugging Face directory: everything except the weights' values."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pd_core.checkpoints.checkpoint import Checkpoint
from pd_core.checkpoints.hf_config import read_config
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.identity.numerics import unchecked
from pd_core.models.causal_lm import CausalLM
from pd_core.store.json_file import read_json
from pd_core.store.mistaken_models import what_directory_is
from pd_core.text.tokenizer import Tokenizer

__all__ = ["ModelDirectory"]

_READ_SUFFIXES = (".json", ".jinja", ".safetensors")


class ModelDirectory:
    """The content of a directory's files, checked against each other.

    Attributes:
        name: the directory's name.
        config: the model's shape.
        tokenizer: the tokenizer.
        settings: special tokens and chat template.
        chat_template: the compiled template; None when there is none.
        eos_token_ids: ids that end a sequence; may be empty.
        sampling_defaults: the model's own sampling parameters.
        checkpoint: the weights' files, with their headers read.
        shapes: the model's weights by name, on the meta device, which takes no memory.

    Raises:
        ModelError: a file is missing, broken or unsupported, links out of the directory or asks to
            run code, or two files do not match; the message says which and why.
    """

    def __init__(self, directory: Path) -> None:
        root = directory.resolve()
        if not root.is_dir():
            raise ModelError(f"{directory} is not a directory")
        try:
            _check_links(root)
        except (OSError, RuntimeError) as error:  # not readable; links that lead in a circle
            raise ModelError(f"{directory} cannot be read: {error}; mend or copy it") from error
        if not (root / "config.json").exists():
            raise ModelError(what_directory_is(directory))
        raw = read_json(directory / "config.json")
        self.name = root.name
        self.config = read_config(raw)
        self.tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
        if self.tokenizer.vocab_size > self.config.vocab_size:
            raise ModelError(
                f"the tokenizer has {self.tokenizer.vocab_size} ids, but the model only "
                f"{self.config.vocab_size}; they do not belong together"
            )
        self.settings = TokenizerConfig.from_directory(directory)
        self.tokenizer.make_special(
            self.settings.special_tokens.values(), self.settings.nameless_tokens
        )
        self.chat_template = self.settings.template()
        self.eos_token_ids = self._read_eos_token_ids(directory, raw)
        self.sampling_defaults = SamplingDefaults.from_directory(directory)
        self.checkpoint = Checkpoint(directory)
        self.shapes = self._read_shapes()

    def _read_shapes(self) -> dict[str, Tensor]:
        """Compare the config with the weights' headers, before memory is allocated by its sizes."""
        config, stored = self.config, self.checkpoint.num_layers()
        if config.num_layers > stored:
            raise ModelError(
                f"config.json: num_hidden_layers is {config.num_layers}, but the checkpoint has "
                f"weights of {stored} layers"
            )
        shapes = CausalLM(config, unchecked("meta"), device=torch.device("meta")).tensors()
        self.checkpoint.check_fits(shapes, tied_head=config.tie_word_embeddings)
        return shapes

    def _read_eos_token_ids(self, directory: Path, config: dict[str, Any]) -> tuple[int, ...]:
        """Read the end-of-sequence ids; chat models usually have several.

        Those of generation_config.json, or else of config.json, and the tokenizer's eos_token:
        many chat models name the end of a turn in one of these places only.
        """
        generation = directory / "generation_config.json"
        value = read_json(generation).get("eos_token_id") if generation.exists() else None
        value = config.get("eos_token_id") if value is None else value
        ids = list(value) if isinstance(value, list) else [] if value is None else [value]
        num_ids = self.tokenizer.vocab_size
        for i in ids:
            if type(i) is not int or not 0 <= i < num_ids:
                raise ModelError(
                    f"eos_token_id {i!r} is not an id of the tokenizer (0..{num_ids - 1})"
                )
        own = self.tokenizer.token_id(self.settings.special_tokens.get("eos_token", ""))
        return tuple(dict.fromkeys(ids if own is None else [*ids, own]))


def _check_links(root: Path) -> None:
    """Refuse links out of the directory, except into Hugging Face's own file cache.

    Also refuse anything that is neither file nor folder: reading a named pipe would never end.
    """
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    for path in sorted(root.iterdir()):
        if path.suffix not in _READ_SUFFIXES:
            continue
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path.name} is neither a file nor a folder; remove it")
        if not path.is_symlink():
            continue
        target = path.resolve()
        if not any(target.is_relative_to(home) for home in homes):
            raise ModelError(
                f"{path.name} is a link out of the model's directory, to {target}; put the file "
                "itself there"
            )
