"""The manifest of a pulled model: its files, and where they came from."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_core.errors import ModelError
from pd_core.store.model_store import MANIFEST, PulledName, pulled_folder

__all__ = ["Manifest", "PulledFile", "read_manifest"]

_FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"


class PulledFile(BaseModel):
    """One file, as it was when pulled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The files of a pulled model, and its origin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    commit: str
    endpoint: str
    files: dict[Annotated[str, Field(pattern=_FILE_NAME)], PulledFile]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size_bytes for file in self.files.values())


def read_manifest(name: PulledName) -> Manifest:
    """Return the manifest of a pulled model.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    path = pulled_folder(name) / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{name} is not here; get it with: pd-device models pull {name}"
        ) from error
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{path} cannot be read as a manifest ({type(error).__name__}); pull the model again: "
            f"pd-device models pull {name}"
        ) from error
