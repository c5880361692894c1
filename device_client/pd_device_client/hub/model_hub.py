"""A model's files on a hub: huggingface-hub, with our errors.

Files are fetched by plain HTTP with range requests, and received bytes stay on the disk, so an
interrupted pull resumes where it stopped, even in a new process. (The library's own file download
discards them when its process ends, so only its parts are used.)
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# Documented there, though not marked as exported.
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    http_stream_backoff,
)

from pd_core.errors import HubUnavailable, ModelError
from pd_core.store.model_store import PulledName

__all__ = ["HubFile", "ModelHub", "Repo"]

_READ_BYTES = 1 << 20
_ANSWER_S = 30.0
# Attempts in a row without a new byte before a broken download fails.
_TRIES = 4


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub announces it.

    Attributes:
        name: its path in the repository.
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
        """The digest that identifies its bytes, whatever its name."""
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
        commit: the commit that the revision names now.
        files: all files.
    """

    commit: str
    files: tuple[HubFile, ...]


class ModelHub:
    """A hub that speaks Hugging Face's HTTP.

    Args:
        endpoint: its address; None: the variable HF_ENDPOINT, or Hugging Face.
        token: for models that need one; None: as the library finds it (HF_TOKEN, its login).
        wait_s: seconds between two attempts.
    """

    def __init__(
        self, endpoint: str | None = None, token: str | None = None, *, wait_s: float = 1.0
    ) -> None:
        self._wait_s = wait_s
        self._api = HfApi(endpoint=endpoint, token=token)
        self._token = token

    @property
    def endpoint(self) -> str:
        """Its address."""
        return str(self._api.endpoint)

    def look(self, name: PulledName) -> Repo:
        """Return a model's files on the hub.

        Raises:
            ModelError: it has no such model or revision, or refuses access.
            HubUnavailable: it cannot be reached, or does not describe the model.
        """
        with self._our_errors(name):
            info = self._api.model_info(
                name.repo, revision=name.revision, files_metadata=True, timeout=_ANSWER_S
            )
        if info.sha is None or info.siblings is None:
            raise HubUnavailable(f"{self.endpoint} does not say what {name} consists of")
        files = []
        for file in info.siblings:
            if file.size is None or file.blob_id is None:
                raise HubUnavailable(f"{self.endpoint} gives no size of {file.rfilename} of {name}")
            sha256 = None if file.lfs is None else file.lfs.sha256
            files.append(HubFile(file.rfilename, file.size, file.blob_id, sha256))
        return Repo(info.sha, tuple(files))

    def fetch(
        self,
        name: PulledName,
        commit: str,
        file: HubFile,
        into: Path,
        arrived: Callable[[int], None],
    ) -> None:
        """Append the missing bytes of a file to those already received.

        Args:
            name: the model.
            commit: its commit.
            file: the file.
            into: holds the bytes received so far; need not exist.
            arrived: called with the number of bytes received.

        Raises:
            ModelError: the hub refuses access, or the file cannot be written.
            HubUnavailable: the file is incomplete; the received bytes stay.
        """
        url = hf_hub_url(name.repo, file.name, revision=commit, endpoint=self.endpoint)
        with self._our_errors(name), into.open("ab") as opened:
            tries = _TRIES
            while (there := opened.tell()) < file.size_bytes:
                try:
                    self._append(url, opened, file.size_bytes, arrived)
                except httpx2.TransportError:
                    tries = tries - 1 if opened.tell() == there else _TRIES
                    if not tries:
                        raise
                    threading.Event().wait(self._wait_s)

    def _append(
        self, url: str, opened: BinaryIO, size_bytes: int, arrived: Callable[[int], None]
    ) -> None:
        headers = build_hf_headers(token=self._token)
        # Offsets count uncompressed bytes, so the response must not be compressed.
        headers |= {"Range": f"bytes={opened.tell()}-", "Accept-Encoding": "identity"}
        with http_stream_backoff(
            "GET", url, headers=headers, timeout=_ANSWER_S, retry_on_exceptions=()
        ) as response:
            hf_raise_for_status(response)
            if response.status_code == httpx2.codes.OK:  # the whole file, not the range
                opened.seek(0)
                opened.truncate()
            for part in response.iter_bytes():
                opened.write(part)
                arrived(opened.tell())
                if opened.tell() > size_bytes:
                    return  # its digest will be wrong too

    @contextmanager
    def _our_errors(self, name: PulledName) -> Iterator[None]:
        try:
            yield
        except GatedRepoError as error:
            raise ModelError(
                f"{name} is gated: accept its terms on {self.endpoint}/{name.repo}, then give a "
                "token of that account (--token-file, or the variable HF_TOKEN)"
            ) from error
        except RevisionNotFoundError as error:
            raise ModelError(f"{name.repo} has no revision {name.revision!r}") from error
        except RepositoryNotFoundError as error:
            raise ModelError(
                f"{self.endpoint} has no model {name.repo}, or it is private and needs a token "
                "(--token-file, or the variable HF_TOKEN)"
            ) from error
        except OfflineModeIsEnabled as error:
            raise HubUnavailable(
                f"{name} cannot be pulled while the variable HF_HUB_OFFLINE says to stay offline"
            ) from error
        except HfHubHTTPError as error:
            code = error.response.status_code
            if code in (401, 403):
                raise ModelError(
                    f"{self.endpoint} refuses the token for {name.repo} (status {code}); give "
                    "another one (--token-file, or the variable HF_TOKEN)"
                ) from error
            raise HubUnavailable(
                f"{self.endpoint} answered with status {code} for {name}; pull again later, what "
                "has arrived is kept"
            ) from error
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise HubUnavailable(
                f"{self.endpoint} cannot be reached for {name} ({reason}); check the network and "
                "pull again, what has arrived is kept"
            ) from error
        except OSError as error:  # last, since some of the library's errors are OSErrors
            raise ModelError(
                f"{name} cannot be written ({error.strerror}); make room and pull again, what has "
                "arrived is kept"
            ) from error
