"""Misspelt variables are named, with what was meant; their values are not."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pd_bench.commands.app import app as bench
from pd_core.settings.stray_variables import stray_variables
from pd_device_client.commands.app import app as device
from pd_device_client.commands.program import PROGRAM
from pd_server.command import app as server

REPO = Path(__file__).parents[4]
KNOWN = {f"PD_DEVICE_{name}" for name in ("CLOUD", "PORT", "MAX_TOKENS", "MODE", "MODEL")}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("PD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PD_DEVICE_CLOD", "PD_DEVICE_CLOUD"),
        ("PD_DEVICE_MODLE", "PD_DEVICE_MODEL"),
        ("PD_DEVICE_MOED", "PD_DEVICE_MODE"),
        ("PD_DEVICE_MAXTOKENS", "PD_DEVICE_MAX_TOKENS"),
        ("PD_DEVCE_CLOUD", "PD_DEVICE_CLOUD"),
        ("pd_device_port", "PD_DEVICE_PORT"),
        ("PD_MODEL_DIR", "PD_MODELS_DIR"),
        ("PD_DEVICE_NOTHING_LIKE_IT", None),
        ("PD_COLOUR", None),
    ],
)
def test_a_variable_that_sets_nothing_is_named_with_the_nearest_one(
    name: str, meant: str | None
) -> None:
    (line,) = stray_variables("PD_DEVICE_", KNOWN, {name: "hunter2", "PATH": "/bin"})
    assert name in line
    assert "hunter2" not in line
    assert ("did you mean" in line) == (meant is not None)
    assert meant is None or f"did you mean {meant}?" in line


@pytest.mark.parametrize(
    "environment",
    [
        {"PD_DEVICE_CLOUD": "x"},
        {"PD_SERVER_ANYTHING": "of the other program"},
        {"PD_MODELS_DIR": "x", "PD_TRACE_DIR": "x"},
        {"PDSH_RCMD_TYPE": "ssh"},
        {
            "PD_DEVICE_WEB_SERVICE_HOST": "10.0.0.1",
            "PD_DEVICE_WEB_SERVICE_PORT_HTTP": "80",
            "PD_DEVICE_WEB_PORT": "tcp://10.0.0.1:80",
            "PD_DEVICE_WEB_PORT_80_TCP_ADDR": "10.0.0.1",
        },
    ],
    ids=["own", "other-program", "elsewhere", "other-name", "kubernetes"],
)
def test_what_is_read_or_not_meant_for_the_program_is_left_alone(
    environment: dict[str, str],
) -> None:
    assert stray_variables("PD_DEVICE_", KNOWN, environment) == []


def test_many_strays_are_counted_and_a_strange_name_stays_one_line() -> None:
    lines = stray_variables("PD_DEVICE_", KNOWN, {f"PD_X\n{i}" + "x" * 999: "" for i in range(30)})
    assert len(lines) == 6
    assert "25 more" in lines[-1]
    assert all("\n" not in line and len(line) < 200 for line in lines)


@pytest.mark.parametrize(
    ("app", "args", "name", "words"),
    [
        (device, ["doctor", "--settings"], "PD_DEVICE_CLOD", "did you mean PD_DEVICE_CLOUD?"),
        (device, ["models", "list"], "PD_MODEL_DIR", "did you mean PD_MODELS_DIR?"),
        (server, ["--model", "no-such"], "PD_SERVER_MODL", "did you mean PD_SERVER_MODEL?"),
        (bench, ["compare", "a", "b"], "PD_FOO", "no option has this name"),
    ],
)
def test_each_program_warns_once_on_standard_error(
    app: typer.Typer, args: list[str], name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    result = CliRunner().invoke(app, args)
    assert result.stderr.count(f"warning: the variable {name} sets nothing; {words}") == 1
    assert "hunter2" not in result.output


def test_every_variable_of_the_device_is_known() -> None:
    def variables(command: Any) -> set[str]:
        own = {str(each.envvar) for each in command.params if each.envvar}
        inner = getattr(command, "commands", {}).values()
        return own.union(*map(variables, inner))

    stored = PROGRAM.variables(())
    assert variables(typer.main.get_command(device)) <= stored
    assert {"PD_DEVICE_CONFIG", "PD_DEVICE_API_KEY", "PD_DEVICE_CLOUD"} <= stored


def test_the_variables_of_the_repository_s_own_scripts_are_known() -> None:
    folders = [*(REPO / "deploy").iterdir(), *(REPO / "tests").rglob("*.py")]
    files = [REPO / "docker-compose.yml", REPO / "Makefile", *folders]
    texts = [each.read_text(encoding="utf-8") for each in files if each.is_file()]
    read = re.compile(r"""(?:\$\{|environ\[|environ\.get\(|@)["']?(PD_[A-Z_]+)""")
    used = {name for text in texts for name in read.findall(text)}
    assert len(used) > 8
    used = {name for name in used if not name.startswith(("PD_DEVICE_", "PD_SERVER_"))}
    assert stray_variables("PD_DEVICE_", (), dict.fromkeys(used, "")) == []
