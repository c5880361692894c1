"""Where models pulled from a hub are kept, and how they are found by name.

One folder a name: ROOT/owner/model, or ROOT/owner/model@revision. It is an ordinary Hugging Face
directory with one more file, the manifest, and is moved into place in one step when it is complete
and checked. A model being pulled is under ROOT/.partial, so an incomplete model is never found.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from pd_core.errors import ConfigError
from pd_core.host.user_folders import expanded, user_folder
from pd_core.store.catalogue import CATALOGUE

__all__ = [
    "MANIFEST",
    "ROOT_VARIABLE",
    "PulledName",
    "find_pulled",
    "partial_folder",
    "pulled_folder",
    "pulled_names",
    "store_root",
]

ROOT_VARIABLE = "PD_MODELS_DIR"
"""The variable that names the folder of pulled models."""

MANIFEST = "pd-manifest.json"
DEFAULT_REVISION = "main"

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"({_PART})/({_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?")
_PARTIAL = ".partial"
_CATALOGUE_OWNER = "_"  # no account on a hub is called so


@dataclass(frozen=True, slots=True, order=True)
class PulledName:
    """A model's name on a hub.

    Attributes:
        owner: the account that published it.
        model: its name on the hub.
        revision: a branch, a tag or a commit.
    """

    owner: str
    model: str
    revision: str = DEFAULT_REVISION

    @classmethod
    def parse(cls, spec: str) -> Self | None:
        """Read "owner/model", "owner/model@revision" or a name of the catalogue; else None."""
        if spec in CATALOGUE:
            return cls(_CATALOGUE_OWNER, spec)
        found = _NAME.fullmatch(spec)
        if found is None or ".." in spec:
            return None
        owner, model, revision = found.groups()
        return cls(owner, model, revision or DEFAULT_REVISION)

    @property
    def repo(self) -> str:
        """Owner and model, in the hub's notation."""
        return f"{self.owner}/{self.model}"

    def __str__(self) -> str:
        if self.owner == _CATALOGUE_OWNER:
            return self.model
        named = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{self.repo}{named}"


def store_root() -> Path:
    """Return the folder of pulled models: the variable's, or one in the user's data directory.

    Raises:
        ConfigError: nothing names a folder, and the user has no home.
    """
    if (root := _known_root()) is None:
        raise ConfigError(
            "there is no place for pulled models, because you have no home directory that you can "
            f"enter; name a folder with the variable {ROOT_VARIABLE}, or set HOME"
        )
    return root


def pulled_folder(name: PulledName) -> Path:
    """Return the folder of a model, whether it exists or not."""
    return store_root() / name.owner / _folder_name(name)


def partial_folder(name: PulledName) -> Path:
    """Return the folder of a model's files while it is being pulled."""
    return store_root() / _PARTIAL / name.owner / _folder_name(name)


def find_pulled(name: PulledName) -> Path | None:
    """Return the directory of a model that was pulled, or None.

    Raises:
        ConfigError: the folder of pulled models cannot be looked into.
    """
    if _known_root() is None:
        return None
    folder = pulled_folder(name)
    with _our_errors():
        return folder if (folder / MANIFEST).is_file() else None


def pulled_names(*, partial: bool = False) -> Iterator[PulledName]:
    """Yield the names of all pulled models, sorted.

    Args:
        partial: yield the incomplete models instead.

    Raises:
        ConfigError: the folder of pulled models cannot be looked into.
    """
    if (root := _known_root()) is None:
        return
    root = root / _PARTIAL if partial else root
    with _our_errors():
        folders = sorted(root.glob("*/*"))
    for folder in folders:
        name = PulledName.parse(f"{folder.parent.name}/{unquote(folder.name)}")
        if name is not None and folder.is_dir() and (partial or find_pulled(name) is not None):
            yield name


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the folder of pulled models, {_known_root()}, cannot be looked into "
            f"({error.strerror}); make it readable for you, or name another one with the variable "
            f"{ROOT_VARIABLE}"
        ) from error


def _known_root() -> Path | None:
    if chosen := os.environ.get(ROOT_VARIABLE):
        return expanded(Path(chosen))
    data = user_folder("XDG_DATA_HOME", ".local/share")
    return None if data is None else data / "pd-device" / "models"


def _folder_name(name: PulledName) -> str:
    named = "" if name.revision == DEFAULT_REVISION else f"@{quote(name.revision, safe='')}"
    return f"{name.model}{named}"
