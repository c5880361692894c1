"""Models given by name instead of a path: the shipped one, a random one, and pulled ones."""

from pathlib import Path

from pd_core.errors import ModelError
from pd_core.store.catalogue import CATALOGUE
from pd_core.store.gguf_paths import gguf_of
from pd_core.store.mistaken_models import what_spec_is
from pd_core.store.model_store import PulledName, find_pulled, pulled_names

__all__ = ["DEFAULT_MODEL", "MODEL_HELP", "RANDOM_TINY", "model_directory", "model_path"]

DEFAULT_MODEL = "skipv1-python-5m"
"""The default model of every command: small, trained, 2,048 tokens of context."""

RANDOM_TINY = "random-tiny"
"""Random weights, generated when loaded: for tests, and for contexts of up to 16,384 tokens."""

MODEL_HELP = (
    f"{DEFAULT_MODEL}, {RANDOM_TINY}, a pulled {next(iter(CATALOGUE))} or OWNER/MODEL, "
    "a Hugging Face directory, or a GGUF file."
)

_ASSETS = Path(__file__).parents[1] / "assets"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def model_directory(spec: str) -> Path:
    """Return a model's Hugging Face directory: what `model_path` returns, unless it is GGUF.

    Raises:
        ModelError: as `model_path`; or it is a GGUF file, which is run but not changed.
    """
    path = model_path(spec)
    if gguf_of(path) is not None:
        raise ModelError(
            f"{spec!r} is a model in GGUF, which pd-server (--engine torch) and pd-device run, and "
            "which cannot be used here; give a Hugging Face directory"
        )
    return path


def model_path(spec: str) -> Path:
    """Return where the shipped or a pulled model is, by name, or any model, by path.

    It is a directory, or a GGUF file that was named itself.

    A name takes precedence; for a directory of the same name write "./NAME". A leading "~" is the
    user's home, as settings files and variables do not pass through a shell.

    Raises:
        ModelError: there is no such model, this installation lacks the shipped model, or it is
            "random-tiny", which has no files.
    """
    if spec == DEFAULT_MODEL:
        return _shipped(spec)
    if spec == RANDOM_TINY:
        raise ModelError(f"{RANDOM_TINY} is made on the spot and has no files; name a directory")
    name = PulledName.parse(spec)
    pulled = None if name is None else find_pulled(name)
    if pulled is not None:
        return pulled
    try:
        directory = Path(spec).expanduser()
        if spec and (directory.is_dir() or gguf_of(directory) is not None):
            return directory
        words = what_spec_is(spec, [DEFAULT_MODEL, RANDOM_TINY, *map(str, pulled_names())])
    except (OSError, ValueError, RuntimeError) as error:  # too long, forbidden, "~" without a home
        raise ModelError(f"{spec!r} cannot be looked at: {error}; give another path") from error
    raise ModelError(words)


def _shipped(name: str) -> Path:
    directory = _ASSETS / name
    missing = [file for file in _NEEDED if not (directory / file).is_file()]
    if missing:
        raise ModelError(
            f"the model {name!r} is not whole in this installation: {directory} lacks "
            f"{', '.join(missing)}; install the package again, or name another model "
            f"({RANDOM_TINY}, or a Hugging Face directory)"
        )
    return directory
