"""A Hugging Face directory: everything except the weights' values."""

from pathlib import Path
from typing import Any

from pd_core.checkpoints.checkpoint import Checkpoint
from pd_core.checkpoints.hf_config import read_config
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.checkpoints.packed_weights import PackedWeights
from pd_core.checkpoints.quantization_config import read_schemes
from pd_core.checkpoints.sampling_defaults import SamplingDefaults
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.store.json_file import read_json
from pd_core.store.mistaken_models import what_directory_is
from pd_core.text.tokenizer import Tokenizer

__all__ = ["ModelDirectory", "check_links"]

_READ_SUFFIXES = (".json", ".jinja", ".safetensors", ".gguf")


class ModelDirectory(ModelFiles):
    """The content of a directory's files.

    Raises:
        ModelError: a file is missing, broken or unsupported, links out of the directory or asks to
            run code, or two files do not match; the message says which and why.
    """

    def __init__(self, directory: Path) -> None:
        root = directory.resolve()
        if not root.is_dir():
            raise ModelError(
                f"{directory} is not a directory; a Hugging Face directory is needed here"
            )
        check_links(directory)
        if not (root / "config.json").exists():
            raise ModelError(what_directory_is(directory))
        raw = read_json(directory / "config.json")
        config, schemes = read_config(raw), read_schemes(raw)
        tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
        if tokenizer.vocab_size > config.vocab_size:
            raise ModelError(
                f"the tokenizer has {tokenizer.vocab_size} ids, but the model only "
                f"{config.vocab_size}; they do not belong together"
            )
        settings = TokenizerConfig.from_directory(directory)
        tokenizer.make_special(
            settings.special_tokens.values(), settings.nameless_tokens, settings.rules
        )
        super().__init__(
            name=root.name,
            config=config,
            tokenizer=tokenizer,
            settings=settings,
            eos_token_ids=_read_eos_token_ids(directory, raw, tokenizer, settings),
            sampling_defaults=SamplingDefaults.from_directory(directory),
            checkpoint=PackedWeights(directory, schemes) if schemes else Checkpoint(directory),
        )


def _read_eos_token_ids(
    directory: Path, config: dict[str, Any], tokenizer: Tokenizer, settings: TokenizerConfig
) -> tuple[int, ...]:
    """Read the end-of-sequence ids; chat models usually have several.

    Those of generation_config.json, or else of config.json, and the tokenizer's eos_token: many
    chat models name the end of a turn in one of these places only.
    """
    generation = directory / "generation_config.json"
    value = read_json(generation).get("eos_token_id") if generation.exists() else None
    value = config.get("eos_token_id") if value is None else value
    ids = list(value) if isinstance(value, list) else [] if value is None else [value]
    num_ids = tokenizer.vocab_size
    for i in ids:
        if type(i) is not int or not 0 <= i < num_ids:
            raise ModelError(f"eos_token_id {i!r} is not an id of the tokenizer (0..{num_ids - 1})")
    own = tokenizer.token_id(settings.special_tokens.get("eos_token", ""))
    return tuple(dict.fromkeys(ids if own is None else [*ids, own]))


def check_links(directory: Path) -> None:
    """Refuse links out of a directory, except into Hugging Face's own file cache.

    Also refuse anything that is neither file nor folder: reading a named pipe would never end.

    Raises:
        ModelError: there is such an entry, or the directory cannot be read.
    """
    try:
        _check_entries(directory.resolve())
    except (OSError, RuntimeError) as error:  # not readable; links that lead in a circle
        raise ModelError(f"{directory} cannot be read: {error}; mend or copy it") from error


def _check_entries(root: Path) -> None:
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
