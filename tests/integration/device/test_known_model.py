"""A model of the catalogue: from a package or a hub, of pinned bytes, then usable by its name."""

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pd_core.checkpoints.loading import load_model
from pd_core.errors import HubUnavailable, ModelError
from pd_core.store.catalogue import CATALOGUE, KnownModel, WheelSource
from pd_core.store.model_names import model_path
from pd_core.store.model_store import PulledName, partial_folder, pulled_names
from pd_device_client.commands.models import models
from pd_device_client.hub import known_model_pull
from pd_device_client.hub.known_model_pull import pull_known
from pd_device_client.hub.model_hub import ModelHub
from pd_device_client.hub.package_download import download_wheel
from pd_device_client.hub.pulled_models import differences, remove
from tests.gguf_files import gguf_config, gguf_model, write_gguf
from tests.hub_server import HubModel, HubServer, hub_server

NAME = "tiny-known"
FILE = "tiny.gguf"
COMMIT = "c0ffee" * 6 + "c0ff"
MEMBER = f"tiny_known/{FILE}"
pytestmark = pytest.mark.slow


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("known") / FILE
    config = gguf_config()
    write_gguf(path, config, gguf_model(config).tensors(), kind="Q4_1")
    return path.read_bytes()


@pytest.fixture
def index(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package, in which alone pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    _write_wheel(folder, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def _write_wheel(folder: Path, content: bytes) -> Path:
    wheel = folder / "tiny_known-0.1-py3-none-any.whl"
    about = "tiny_known-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr(zipfile.ZipInfo(MEMBER), content)
        packed.writestr(
            zipfile.ZipInfo(f"{about}/METADATA"),
            "Metadata-Version: 2.1\nName: tiny-known\nVersion: 0.1\n",
        )
        packed.writestr(
            zipfile.ZipInfo(f"{about}/WHEEL"),
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        packed.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "")
    return wheel


@pytest.fixture
def known(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    pinned = tmp_path / "pinned"
    pinned.mkdir()
    wheel = _write_wheel(pinned, content)
    model = KnownModel(
        name=NAME,
        title="a tiny model",
        licence="none",
        file=FILE,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        hub_repo="tester/tiny",
        hub_commit=COMMIT,
        wheel=WheelSource(
            package="tiny-known",
            version="0.1",
            sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
            size_bytes=wheel.stat().st_size,
            member=MEMBER,
        ),
    )
    monkeypatch.setitem(CATALOGUE, NAME, model)
    return model


@pytest.fixture
def hub(content: bytes) -> Iterator[HubServer]:
    with hub_server() as server:
        server.models["tester/tiny@main"] = HubModel(COMMIT, {FILE: content})
        yield server


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package index has nothing."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def _nowhere() -> ModelHub:
    return ModelHub("http://127.0.0.1:9", wait_s=0.0)


def test_a_model_comes_out_of_its_package_and_runs_by_its_name(
    known: KnownModel, index: Path, content: bytes
) -> None:
    steps: list[str] = []
    manifest, changed = pull_known(known, _nowhere(), lambda what, *_: steps.append(what))
    assert changed
    assert (manifest.name, manifest.commit) == (NAME, "0.1")
    assert {"pulling", "checking", "unpacking"} <= set(steps)
    folder = model_path(NAME)
    assert (folder / FILE).read_bytes() == content
    assert [str(name) for name in pulled_names()] == [NAME]
    loaded = load_model(NAME)
    assert loaded.name == NAME
    assert loaded.chat_template is not None
    name = PulledName.parse(NAME)
    assert name is not None
    assert not partial_folder(name).exists()
    assert pull_known(known, _nowhere(), silent) == (manifest, False)
    assert differences(name, silent) == []
    assert remove(name) > len(content)
    with pytest.raises(ModelError, match=f"pd-device models pull {NAME}"):
        model_path(NAME)


def test_without_the_package_it_comes_from_the_hub(
    known: KnownModel, no_package: None, hub: HubServer, content: bytes
) -> None:
    manifest, changed = pull_known(known, ModelHub(hub.url), silent)
    assert changed
    assert (manifest.commit, manifest.endpoint) == (COMMIT, hub.url)
    assert (model_path(NAME) / FILE).read_bytes() == content


def test_other_bytes_than_the_pinned_are_thrown_away(
    known: KnownModel, index: Path, hub: HubServer, content: bytes
) -> None:
    _write_wheel(index, content[:-1] + b"x")
    hub.other_bytes.add(FILE)
    with pytest.raises(HubUnavailable, match=r"nowhere: .*checksum differs.*; .*checksum differs"):
        pull_known(known, ModelHub(hub.url), silent)
    assert list(pulled_names()) == []
    hub.other_bytes.clear()
    manifest, _ = pull_known(known, ModelHub(hub.url), silent)
    assert manifest.commit == COMMIT


def test_where_it_can_be_had_from_nowhere_both_reasons_are_told(
    known: KnownModel, no_package: None
) -> None:
    with pytest.raises(
        HubUnavailable, match=r"pip cannot download tiny-known==0.1 \(ERROR.*reached"
    ):
        pull_known(known, _nowhere(), silent)


def test_a_python_without_pip_is_told_how_to_get_it(
    known: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"has no pip; give it one with: .* -m ensurepip"):
        download_wheel(known.wheel, tmp_path, silent)


def test_a_pip_that_stands_still_is_ended(known: KnownModel, tmp_path: Path) -> None:
    waits = (sys.executable, "-c", "import time; time.sleep(60)")
    with pytest.raises(HubUnavailable, match="it stood still"):
        download_wheel(known.wheel, tmp_path, silent, pip=waits, stands_still_s=0.3)


def test_what_pip_removes_while_it_is_looked_at_is_passed_over(
    known: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    scandir, looked = os.scandir, tmp_path / "looked"

    def vanishing(path: str | Path = ".") -> object:
        if str(path).endswith("gone"):
            looked.touch()
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    waits = f"import os, sys, time\nwhile not os.path.exists({str(looked)!r}): time.sleep(0.01)\n"
    fails = (sys.executable, "-c", waits + "sys.exit('ERROR: no')")
    with pytest.raises(HubUnavailable, match="ERROR: no"):
        download_wheel(known.wheel, tmp_path, silent, pip=fails)
    assert looked.exists()


def test_a_damaged_model_is_pulled_again(known: KnownModel, index: Path, content: bytes) -> None:
    pull_known(known, _nowhere(), silent)
    file = model_path(NAME) / FILE
    file.write_bytes(b"x" * len(content))
    assert pull_known(known, _nowhere(), silent)[1]
    assert file.read_bytes() == content


def test_a_disk_without_room_is_said_before(
    known: KnownModel, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = replace(known, size_bytes=1 << 60)
    with pytest.raises(ModelError, match="MiB more on the disk"):
        known_model_pull.pull_known(huge, _nowhere(), silent)


def test_the_commands_list_pull_verify_and_remove(known: KnownModel, index: Path) -> None:
    def said(*words: str) -> str:
        done = CliRunner().invoke(models, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    assert f"not here: pd-device models pull {NAME}" in said("list")
    assert f"{NAME} is here" in said("pull", NAME)
    assert "not here" not in "".join(line for line in said("list").splitlines() if NAME in line)
    assert f"ok   {NAME}" in said("verify")
    assert f"{NAME} is removed" in said("remove", NAME, "--yes")


def test_the_shipped_catalogue_is_well_formed() -> None:
    for name, model in CATALOGUE.items():
        assert name == model.name
        assert PulledName.parse(name) is not None
        assert PulledName.parse(model.hub_repo) is not None
        assert model.file.endswith(".gguf")
        assert model.wheel.member.endswith(model.file)
        assert len(model.sha256) == len(model.wheel.sha256) == 64
        assert len(model.hub_commit) == 40
