"""The command line says its version and its help as `pd-device` does."""

from importlib.metadata import version

import pytest

from pd_server.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-server", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_version_is_the_package_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"pd-server {version('pd-device')}\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_breaks_no_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(monkeypatch, option) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "A second one stops at once." in lines
    assert "SIGTERM or SIGINT drains: new requests are refused, running ones end." in lines
