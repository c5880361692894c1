"""Models given by name instead of a path: the shipped one, a random one, and pulled ones."""

from pathlib import Path

from pd_core.errors import ModelError
from pd_core.store.mistaken_models import what_spec_is
from pd_core.store.model_store import PulledName, find_pulled, pulled_names

__all__ = ["DEFAULT_MODEL", "MODEL_HELP", "RANDOM_TINY", "model_directory"]

DEFAULT_MODEL = "skipv1-python-5m"
"""The default model of every command: small, trained, 2,048 tokens of context."""

RANDOM_TINY = "random-tiny"
"""Random weights, generated when loaded: for tests, and for contexts of up to 16,384 tokens."""

MODEL_HELP = f"{DEFAULT_MODEL}, {RANDOM_TINY}, a pulled OWNER/MODEL, or a Hugging Face directory."

_ASSETS = Path(__file__).parents[1] / "assets"
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def model_directory(spec: str) -> Path:
    """Return the directory of the shipped or a pulled model, by name, or of any model, by path.

    A name takes precedence; for a directory of the same name write "./NAME". A leading "~" is the
    user's home, as settings files and variables do not pass through a shell.

    Raises:
        ModelError: there is no such directory, this installation lacks the shipped model, or it is
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
        if spec and directory.is_dir():
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
