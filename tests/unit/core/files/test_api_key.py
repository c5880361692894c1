"""A key is taken from its file or refused, and never shown."""

import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_core.files.api_key import (
    MAX_API_KEY_LENGTH,
    checked_api_key,
    chosen_api_key,
    key_exposure,
    read_api_key,
)
from pd_device_client.commands.messages import warn_of_exposed


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b" s3cret \n\n"])
def test_a_key_file_is_read_without_the_white_space_about_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert read_api_key(path) == "s3cret"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"s3cret s3cret",
        b"s3cret\ns3cret",
        "s3crét".encode(),
        b"s3cret\xff\xfe",
        b"s3cret\x00",
        b"s3cret" * 1000,
    ],
)
def test_unusable_key_files_are_refused_without_showing_the_key(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"the key file {path}") as raised:
        read_api_key(path)
    assert "s3cr" not in "".join(traceback.format_exception(raised.value))


def test_the_longest_key_passes_and_one_more_character_does_not() -> None:
    longest = "k" * MAX_API_KEY_LENGTH
    assert checked_api_key(longest) == longest
    with pytest.raises(ConfigError, match="the API key holds a key of more than 4096 characters"):
        checked_api_key(longest + "k")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="no usable key"):
        read_api_key(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_api_key(tmp_path / name)


def test_the_source_of_a_key_is_named() -> None:
    with pytest.raises(ConfigError, match="PD_SERVER_API_KEY is empty"):
        checked_api_key(" ", "PD_SERVER_API_KEY")
    with pytest.raises(ConfigError, match="PD_SERVER_API_KEY is empty"):
        chosen_api_key(None, "", "PD_SERVER_API_KEY")
    assert chosen_api_key(None, None, "PD_SERVER_API_KEY") is None


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_key_file_that_every_user_can_read_is_told_with_its_mend(
    public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = public / "api.key"
    key.write_text("s3cret\n")
    for mode in (0o600, 0o640):
        key.chmod(mode)
        assert key_exposure(key) == ""
    key.chmod(0o644)
    assert key_exposure(key).endswith(f"chmod 600 {key}")
    assert chosen_api_key(key, None, "UNSET") == "s3cret"
    warn_of_exposed([None, key])
    said = capsys.readouterr().err
    assert said.startswith("warning: every user of this machine can read")
    assert "s3cret" not in said


def test_a_folder_that_others_may_not_enter_protects_a_key(public: Path) -> None:
    key = public / "secrets" / "api.key"
    key.parent.mkdir(mode=0o700)
    key.write_text("s3cret\n")
    key.chmod(0o644)
    assert key_exposure(key) == ""
    link = public / "link"
    link.symlink_to(key)
    assert key_exposure(link) == ""
    assert key_exposure(public / "none") == ""
