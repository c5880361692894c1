"""Models given by name instead of a path: the shipped one, a random one, and pulled ones."""

from pathlib import Path

from pd_core.errors import ModelError
from pd_core.store.model_store import PulledName, find_pulled

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

    A name takes precedence; for a directory of the same name write "./NAME".

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
    directory = Path(spec)
    if directory.is_dir():
        return directory
    get = "" if name is None else f"; get it from a hub with: pd-device models pull {name}"
    raise ModelError(
        f"{spec!r} is neither a directory nor the name of a model that is here; known names: "
        f"{DEFAULT_MODEL}, {RANDOM_TINY}, and those of pd-device models list{get}"
    )


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
