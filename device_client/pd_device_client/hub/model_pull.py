"""Pulling a model from a hub: only the files read here, resumable, checked, all or nothing."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pd_core.checkpoints.hf_config import read_config
from pd_core.errors import ModelError
from pd_core.store.json_file import MOST_JSON_BYTES, read_json
from pd_core.store.manifest import Manifest, PulledFile, read_manifest
from pd_core.store.model_store import (
    MANIFEST,
    ROOT_VARIABLE,
    PulledName,
    find_pulled,
    partial_folder,
    pulled_folder,
)
from pd_device_client.hub.model_card import HubFile, Repo
from pd_device_client.hub.model_hub import ModelHub
from pd_device_client.hub.pulled_models import differences, sole_use

__all__ = ["Progress", "check_room", "pull", "put_in_place"]

Progress = Callable[[str, int, int], None]
"""Called with (a word for the step, bytes done, bytes in all)."""

_KEPT_SUFFIXES = (".json", ".txt", ".jinja", ".model")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_NEEDED = ("config.json", "tokenizer.json")
_FIRST = ("config.json", _INDEX)  # they say whether and which others are fetched
_MOST_SMALL_FILES = 200
_DISK_BLOCK_BYTES = 4096  # even the smallest file takes so much
_ARRIVED_SUFFIX = ".arrived"
_SPARE_BYTES = 64 << 20  # left free on the disk


def pull(hub: ModelHub, name: PulledName, progress: Progress) -> tuple[Manifest, bool]:
    """Pull or update a model; return its manifest and whether anything changed.

    A local model is checked byte by byte first; damaged files are pulled again. An interrupted pull
    keeps the received bytes, and the next one resumes. The old model is replaced at the very end.

    Raises:
        ModelError: the hub does not have it, it cannot be run here, its bytes are not the
            announced ones, or they cannot be written.
        HubUnavailable: the hub cannot be reached, or the download broke off.
        ConfigError: another process pulls it.
    """
    with sole_use(name):
        repo = hub.look(name)
        older = _older(name)
        if older is not None and older.commit == repo.commit:
            damage = differences(name, lambda done, total: progress("checking", done, total))
            if not damage:
                return older, False
        folder = partial_folder(name)
        small = _small_files(name, repo)
        first = [file for file in small if file.name in _FIRST]
        # Which shards are needed the index says, so those are counted later.
        single = [file for file in repo.files if file.name == _SINGLE]
        check_room(name, [*small, *single], folder, older)
        _bring(hub, name, repo, first, older, progress)
        _check_config(name, folder / "config.json")
        files = [*small, *_weights(name, repo, folder)]
        check_room(name, files, folder, older)
        pulled = _bring(hub, name, repo, files, older, progress)
        manifest = Manifest(
            name=str(name), commit=repo.commit, endpoint=hub.endpoint, files=dict(sorted(pulled))
        )
        put_in_place(name, manifest)
        return manifest, True


def _older(name: PulledName) -> Manifest | None:
    """Return the local model's manifest; None if there is none or it is damaged."""
    with suppress(ModelError):
        return read_manifest(name) if find_pulled(name) is not None else None
    return None


def _small_files(name: PulledName, repo: Repo) -> list[HubFile]:
    """Return the files beside the weights, from the repository's top folder only."""
    files = [
        file
        for file in repo.files
        if _PLAIN_NAME.fullmatch(file.name)
        and file.name.endswith(_KEPT_SUFFIXES)
        and file.name != MANIFEST
    ]
    there = {file.name for file in files}
    if missing := [needed for needed in _NEEDED if needed not in there]:
        if any(file.name.lower().endswith(".gguf") for file in repo.files):
            raise ModelError(
                f"{name} holds GGUF files, one for each size of its weights, which are not pulled; "
                "download one and name it with --model FILE.gguf, or pull the model that they were "
                "made from (the model's card names it)"
            )
        raise ModelError(
            f"{name} has no {' and no '.join(missing)}, so it is not an ordinary Hugging Face "
            "directory of a language model; choose another model, or its conversion to one"
        )
    if len(files) > _MOST_SMALL_FILES:
        raise ModelError(
            f"{name} has {len(files)} files beside its weights, and no language model needs more "
            f"than {_MOST_SMALL_FILES}; choose another model"
        )
    for file in files:
        if file.name in _FIRST and file.size_bytes > MOST_JSON_BYTES:
            raise ModelError(
                f"{file.name} of {name} has {file.size_bytes >> 20} MiB, and no model's is larger "
                f"than {MOST_JSON_BYTES >> 20} MiB; choose another model"
            )
    return files


def _weights(name: PulledName, repo: Repo, folder: Path) -> list[HubFile]:
    """Return the checkpoint's files: a single one, or those in the index."""
    known = {file.name: file for file in repo.files}
    if _SINGLE in known:
        return [known[_SINGLE]]
    if _INDEX not in known:
        raise ModelError(
            f"{name} has no safetensors weights (no {_SINGLE} and no {_INDEX}); pickle files can "
            "run code and are never fetched, so choose a model that has safetensors"
        )
    weight_map = read_json(folder / _INDEX).get("weight_map")
    shards = sorted({str(s) for s in weight_map.values()}) if isinstance(weight_map, dict) else []
    for shard in shards:
        if not (_PLAIN_NAME.fullmatch(shard) and shard.endswith(".safetensors")):
            raise ModelError(f"{_INDEX} of {name} names {shard!r}, which is no safetensors file")
        if shard not in known:
            raise ModelError(f"{_INDEX} of {name} names {shard}, which the hub does not have")
    if not shards:
        raise ModelError(f"{_INDEX} of {name} has no weight_map")
    return [known[shard] for shard in shards]


def _check_config(name: PulledName, config: Path) -> None:
    """Refuse a model that could not be loaded, before gigabytes are fetched."""
    try:
        read_config(read_json(config))
    except ModelError as error:
        shutil.rmtree(config.parent)
        raise ModelError(
            f"{name} cannot be run here, so its weights are not fetched: {error}"
        ) from error


def check_room(
    name: PulledName, files: Sequence[HubFile], folder: Path, older: Manifest | None
) -> None:
    """Refuse files that do not fit on the disk, less those bytes that are here already.

    Raises:
        ModelError: there is no room.
    """
    here = {path.name: path.stat().st_size for path in folder.iterdir()}
    kept = {file.sha256 for file in older.files.values()} if older is not None else set()
    missing = _SPARE_BYTES
    for file in files:
        if file.sha256 not in kept:
            there = max(here.get(file.name, 0), here.get(_arriving(file), 0))
            missing += max(file.size_bytes - there, 0) + _DISK_BLOCK_BYTES
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ModelError(
            f"{name} needs {missing >> 20} MiB more on the disk of {folder}, and {free >> 20} MiB "
            f"are free; make room, or name another folder with the variable {ROOT_VARIABLE}"
        )


def _check_still_room(name: PulledName, folder: Path) -> None:
    """Stop before other programs and we together fill the disk to the last byte."""
    if shutil.disk_usage(folder).free < _SPARE_BYTES // 2:
        raise ModelError(
            f"the disk of {folder} is nearly full while {name} is pulled; make room and pull "
            "again, what has arrived is kept"
        )


def _arriving(file: HubFile) -> str:
    """Return the name of a file that has not wholly arrived."""
    return f"{file.key}{_ARRIVED_SUFFIX}"


def _bring(
    hub: ModelHub,
    name: PulledName,
    repo: Repo,
    files: Sequence[HubFile],
    older: Manifest | None,
    progress: Progress,
) -> list[tuple[str, PulledFile]]:
    """Fetch files into the partial folder; each gets its own name once it is checked."""
    folder = partial_folder(name)
    total = sum(file.size_bytes for file in files)
    before, pulled = 0, []

    def said(what: str) -> Callable[[int], None]:
        done = before
        return lambda size_bytes: progress(what, done + size_bytes, total)

    def arrived(size_bytes: int) -> None:
        _check_still_room(name, folder)
        said("pulling")(size_bytes)

    for file in files:
        target, arriving = folder / file.name, folder / _arriving(file)
        digest = _digest_if_whole(file, target, said("checking"))
        if digest is None:
            if older is not None and not arriving.exists():
                _take_over(name, older, file, arriving)
            hub.fetch(name, repo.commit, file, arriving, arrived)
            try:
                digest = file.digest_of(arriving, said("checking"))
            except ModelError:
                arriving.unlink()
                raise
            arriving.replace(target)
        pulled.append((file.name, PulledFile(size_bytes=file.size_bytes, sha256=digest)))
        before += file.size_bytes
    return pulled


def _digest_if_whole(file: HubFile, target: Path, read: Callable[[int], None]) -> str | None:
    """Return the digest of a file from an earlier pull; remove one that is another commit's."""
    if not target.exists():
        return None
    try:
        return file.digest_of(target, read)
    except ModelError:
        target.unlink()
        return None


def _take_over(name: PulledName, older: Manifest, file: HubFile, arriving: Path) -> None:
    """Link an unchanged large file from the local version, unless it is damaged."""
    for known, pulled in older.files.items():
        ours = pulled_folder(name) / known
        if pulled.sha256 == file.sha256 and ours.is_file():
            with suppress(ModelError, OSError):  # without links it is fetched again
                file.digest_of(ours, lambda _: None)
                os.link(ours, arriving)
            return


def put_in_place(name: PulledName, manifest: Manifest) -> None:
    """Move the folder to its place, with only the files that the manifest names."""
    partial, place = partial_folder(name), pulled_folder(name)
    for path in partial.iterdir():
        if path.name not in manifest.files:  # from an earlier commit
            path.unlink()
    (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        # If the process ends between these lines, the next pull finds all files and moves them.
        replaced = partial.with_name(f".{partial.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        place.rename(replaced)
        partial.rename(place)
        shutil.rmtree(replaced)
    else:
        partial.rename(place)
