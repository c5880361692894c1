"""Names of pulled models, and what is found under them."""

from pathlib import Path

import pytest

from pd_core.errors import ConfigError, ModelError
from pd_core.store.manifest import Manifest, PulledFile, read_manifest
from pd_core.store.model_names import model_directory
from pd_core.store.model_store import (
    MANIFEST,
    PulledName,
    find_pulled,
    partial_folder,
    pulled_folder,
    pulled_names,
    store_root,
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


def put(name: PulledName, content: str | None = None) -> Path:
    folder = pulled_folder(name)
    folder.mkdir(parents=True)
    file = PulledFile(size_bytes=2, sha256="0" * 64)
    manifest = Manifest(name=str(name), commit="c" * 40, endpoint="", files={"config.json": file})
    (folder / MANIFEST).write_text(manifest.model_dump_json() if content is None else content)
    return folder


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("owner/model", PulledName("owner", "model", "main")),
        ("owner/model@main", PulledName("owner", "model", "main")),
        ("Owner/Model-1.5B@v1.0", PulledName("Owner", "Model-1.5B", "v1.0")),
        ("owner/model@refs/pr/1", PulledName("owner", "model", "refs/pr/1")),
    ],
)
def test_a_name_is_read(spec: str, name: PulledName) -> None:
    assert PulledName.parse(spec) == name
    assert PulledName.parse(str(name)) == name
    assert pulled_folder(name).parent == store_root() / name.owner


@pytest.mark.parametrize(
    "spec",
    [
        *("model", "/model", "owner/", "a/b/c", "./model", "../model", "owner/..", ".partial/x"),
        *("owner/model@", "owner/model@../x", "owner/mo del", "owner/model@a\n", "~/model", ""),
        "o" * 97 + "/model",
    ],
)
def test_what_is_no_name_is_none(spec: str) -> None:
    assert PulledName.parse(spec) is None


def test_only_whole_models_are_found(root: Path) -> None:
    whole, half = PulledName("o", "whole", "refs/pr/1"), PulledName("o", "half")
    put(whole)
    partial_folder(half).mkdir(parents=True)
    (root / "o" / "stray").mkdir()
    assert list(pulled_names()) == [whole]
    assert list(pulled_names(partial=True)) == [half]
    assert find_pulled(half) is None
    assert read_manifest(whole).files["config.json"].size_bytes == 2


def test_a_pulled_name_goes_before_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o" / "m").mkdir(parents=True)
    assert model_directory("o/m") == Path("o/m")
    folder = put(PulledName("o", "m"))
    assert model_directory("o/m") == folder
    assert model_directory("./o/m") == Path("./o/m")
    with pytest.raises(ModelError, match="get it from a hub with: pd-device models pull o/n"):
        model_directory("o/n")


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "\x00"),
        '{"name": "o/m", "commit": "c", "endpoint": "", "files": {"../x": {"size_bytes": 1, '
        '"sha256": "' + "0" * 64 + '"}}}',
        '{"name": "o/m", "commit": "c", "endpoint": "", "files": {}, "more": 1}',
    ],
)
def test_a_broken_manifest_is_refused_with_its_mend(content: str) -> None:
    put(PulledName("o", "m"), content)
    with pytest.raises(ModelError, match="pd-device models pull o/m"):
        read_manifest(PulledName("o", "m"))


def test_the_folder_is_the_variables_or_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_root() == tmp_path / "models"
    monkeypatch.delenv("PD_MODELS_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert store_root() == tmp_path / "data" / "pd-device" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_root() == tmp_path / ".local" / "share" / "pd-device" / "models"


def test_without_a_home_nothing_is_found_and_a_new_model_has_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "PD_MODELS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # no entry in the user database
    assert find_pulled(PulledName("owner", "model")) is None
    assert list(pulled_names()) == []
    with pytest.raises(ConfigError, match="PD_MODELS_DIR"):
        store_root()
    monkeypatch.setenv("PD_MODELS_DIR", "/models")
    assert store_root() == Path("/models")
