"""The file of named keys: what is read, and that every mistake is named and no key shown."""

from hashlib import sha256
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_server.keys.key_file import named_keys, read_key_file
from pd_server.keys.quota import Quota

ONE, TWO = (sha256(key).hexdigest() for key in (b"one", b"two"))


def _file(folder: Path, text: str) -> Path:
    path = folder / "keys.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_hashes_and_bounds_are_read(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        f"""
        [keys.anna]
        sha256 = ["{ONE}", "{TWO.upper()}"]
        requests-per-minute = 60
        tokens-per-day = 200_000
        streams = 4
        [keys."lab.bench-2"]
        sha256 = "{sha256(b"three").hexdigest()}"
        """,
    )
    anna, lab = read_key_file(path)
    assert (anna.name, anna.quota) == ("anna", Quota(60, 200_000, 4))
    assert anna.digests == (bytes.fromhex(ONE), bytes.fromhex(TWO))
    assert (lab.name, lab.quota) == ("lab.bench-2", Quota())


def test_the_single_key_is_one_more(tmp_path: Path) -> None:
    path = _file(tmp_path, f'[keys.anna]\nsha256 = "{ONE}"')
    assert [key.name for key in named_keys(path, "two")] == ["anna", "default"]
    assert [key.name for key in named_keys(None, "two")] == ["default"]
    assert named_keys(None, None) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"\[keys\.NAME\]"),
        ("[keys]", r"\[keys\.NAME\]"),
        ("keys = 3", r"\[keys\.NAME\]"),
        (f'[keys.a]\nsha256 = "{ONE}"\n[other]\nx = 1', "nothing else"),
        ("[keys.a", "not TOML"),
        ("[keys.a]", r"keys\.a.*sha256"),
        ('[keys.a]\nsha256 = "the key itself"', r"keys\.a.*64 hexadecimal"),
        ("[keys.a]\nsha256 = []", r"keys\.a.*64 hexadecimal"),
        ("[keys.a]\nsha256 = [1]", r"keys\.a.*64 hexadecimal"),
        ("keys.a = 1", r"keys\.a.*no table"),
        (f'[keys."a b"]\nsha256 = "{ONE}"', "a name has"),
        (f'[keys.""]\nsha256 = "{ONE}"', "a name has"),
        (f'[keys.a]\nsha256 = "{ONE}"\nstreems = 1', "'streems'.*streams"),
        (f'[keys.a]\nsha256 = "{ONE}"\nstreams = 0', "streams must be"),
        (f'[keys.a]\nsha256 = "{ONE}"\nstreams = true', "streams must be"),
        (f'[keys.a]\nsha256 = "{ONE}"\ntokens-per-day = 1.5', "tokens-per-day must be"),
        (f'[keys.a]\nsha256 = "{ONE}"\n[keys.b]\nsha256 = "{ONE}"', "'a' and 'b'"),
        ("x = " + "[" * 10_000, "not TOML"),
        ("#" * (1 << 20) + "\n", "bytes"),
    ],
)
def test_a_mistake_is_named_and_a_key_is_not_shown(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        named_keys(_file(tmp_path, text), None)
    assert "the key itself" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_key_file(tmp_path / "nowhere.toml")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, f'[keys.default]\nsha256 = "{ONE}"')
    with pytest.raises(ConfigError, match="'default'"):
        named_keys(path, "two")
    with pytest.raises(ConfigError, match="have one key"):
        named_keys(_file(tmp_path, f'[keys.a]\nsha256 = "{ONE}"'), "one")
