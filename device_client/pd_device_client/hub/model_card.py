"""What a hub tells of a model: its files, with their sizes and digests.

A hub is a stranger. Nothing that it says becomes a path before it was checked here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_core.errors import ModelError

__all__ = ["HubFile", "Repo", "read_card"]

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub announces it.

    Attributes:
        name: its path in the repository; may hold anything.
        size_bytes: its size.
        git_oid: hex digest of the git object; for a small file, of its bytes as a git blob.
        sha256: hex digest of its bytes, for large files; None for small ones.
    """

    name: str
    size_bytes: int
    git_oid: str
    sha256: str | None

    @property
    def key(self) -> str:
        """The digest that identifies its bytes, whatever its name; hex digits only."""
        return self.sha256 or self.git_oid

    def digest_of(self, file: Path, read: Callable[[int], None]) -> str:
        """Return the sha256 of a local file after comparing its bytes with the announced digest.

        Args:
            file: the local file.
            read: called with the number of bytes read so far.

        Raises:
            ModelError: the bytes differ.
        """
        ours = hashlib.sha256()
        # git's digest of a blob; no security depends on it, HTTPS provides that.
        git = hashlib.sha1(f"blob {self.size_bytes}\0".encode(), usedforsecurity=False)
        with file.open("rb") as opened:
            while part := opened.read(_READ_BYTES):
                ours.update(part)
                if self.sha256 is None:
                    git.update(part)
                read(opened.tell())
        digest = ours.hexdigest()
        if (digest if self.sha256 else git.hexdigest()) != self.key:
            raise ModelError(
                f"what arrived of {self.name} is not what the hub announced (its checksum differs) "
                "and was thrown away; pull again, and if it comes again, the hub or a proxy before "
                "it changes files"
            )
        return digest


@dataclass(frozen=True, slots=True)
class Repo:
    """A model's files at one commit.

    Attributes:
        commit: the commit that the revision names now; hex digits only.
        files: all files, each name once.
    """

    commit: str
    files: tuple[HubFile, ...]


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Large(_Told):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _File(_Told):
    name: Annotated[str, Field(alias="rfilename", max_length=4096)]
    size: Annotated[int, Field(ge=0, lt=2**53)]
    git_oid: Annotated[str, Field(alias="blobId", pattern=r"^[0-9a-f]{40}$")]
    lfs: _Large | None = None

    def announced(self) -> HubFile:
        sha256 = None if self.lfs is None else self.lfs.sha256
        return HubFile(self.name, self.size, self.git_oid, sha256)


class _Card(_Told):
    sha: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")]
    siblings: list[_File]


def read_card(content: bytes) -> Repo:
    """Read the hub's answer about a model.

    Raises:
        ValueError: it lacks a size or a digest, or something in it is not what it should be.
    """
    try:
        card = _Card.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise ValueError(f"{place}: {first['msg']}") from None
    files = {file.name: file.announced() for file in card.siblings}
    if len(files) < len(card.siblings):
        raise ValueError("a file is named twice")
    return Repo(card.sha, tuple(files.values()))
