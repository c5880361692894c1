"""Pulling a model from a hub: only the files read here, resumable, checked, all or nothing."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pd_core.checkpoints.hf_config import read_config
from pd_core.errors import ModelError
from pd_core.store.json_file import read_json
from pd_core.store.manifest import Manifest, PulledFile, read_manifest
from pd_core.store.model_store import (
    MANIFEST,
    ROOT_VARIABLE,
    PulledName,
    find_pulled,
    partial_folder,
    pulled_folder,
)
from pd_device_client.hub.model_hub import HubFile, ModelHub, Repo
from pd_device_client.hub.pulled_models import differences, sole_use

__all__ = ["Progress", "pull"]

Progress = Callable[[str, int, int], None]
"""Called with (a word for the step, bytes done, bytes in all)."""

_KEPT_SUFFIXES = (".json", ".txt", ".jinja", ".model")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_NEEDED = ("config.json", "tokenizer.json")
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
        _bring(hub, name, repo, small, older, progress)
        _check_config(name, folder / "config.json")
        files = [*small, *_weights(name, repo, folder)]
        _check_room(name, files, folder)
        pulled = _bring(hub, name, repo, files, older, progress)
        manifest = Manifest(
            name=str(name), commit=repo.commit, endpoint=hub.endpoint, files=dict(sorted(pulled))
        )
        _put_in_place(name, manifest)
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
        raise ModelError(
            f"{name} has no {' and no '.join(missing)}, so it is not an ordinary Hugging Face "
            "directory of a language model; choose another model, or its conversion to one"
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


def _check_room(name: PulledName, files: Sequence[HubFile], folder: Path) -> None:
    here = sum(file.stat().st_size for file in folder.iterdir())
    missing = sum(file.size_bytes for file in files) - here + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ModelError(
            f"{name} needs {missing >> 20} MiB more on the disk of {folder}, and {free >> 20} MiB "
            f"are free; make room, or name another folder with the variable {ROOT_VARIABLE}"
        )


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

    for file in files:
        target, arriving = folder / file.name, folder / f"{file.key}{_ARRIVED_SUFFIX}"
        if target.exists():
            target.replace(arriving)  # from an earlier pull: checked like a new one
        elif older is not None and not arriving.exists():
            _take_over(name, older, file, arriving)
        hub.fetch(name, repo.commit, file, arriving, said("pulling"))
        try:
            digest = file.digest_of(arriving, said("checking"))
        except ModelError:
            arriving.unlink()
            raise
        arriving.replace(target)
        pulled.append((file.name, PulledFile(size_bytes=file.size_bytes, sha256=digest)))
        before += file.size_bytes
    return pulled


def _take_over(name: PulledName, older: Manifest, file: HubFile, arriving: Path) -> None:
    """Link an unchanged large file from the local version, unless it is damaged."""
    for known, pulled in older.files.items():
        ours = pulled_folder(name) / known
        if pulled.sha256 == file.sha256 and ours.is_file():
            with suppress(ModelError):
                file.digest_of(ours, lambda _: None)
                os.link(ours, arriving)
            return


def _put_in_place(name: PulledName, manifest: Manifest) -> None:
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
