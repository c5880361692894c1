"""Settings by flag, variable, file and default: one precedence, and every wrong file is refused."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pd_core.errors import ConfigError
from pd_core.settings.command import add_command
from pd_core.settings.composition import composed, offered
from pd_core.settings.program import Read
from pd_core.settings.sources import read_sources
from pd_device_client.cli import main
from pd_device_client.commands.app import app
from pd_device_client.commands.doctor import report
from pd_device_client.commands.program import PROGRAM
from tests.command_here import run_here

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PD_DEVICE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def reported(name: str, config: Path | None = None) -> dict[str, tuple[str, str]]:
    """What the report says of a command's settings: value and source, by name."""
    return {row[1]: row[2:] for row in report(config) if row[0] == name}


def parsed(name: str, *args: str) -> dict[str, Any]:
    """The values with which a command would run."""
    found: list[Read] = []
    alone = typer.Typer(add_completion=False)
    add_command(alone, lambda _, read: found.append(read), PROGRAM.commands[name], PROGRAM, name)
    alone(list(args), standalone_mode=False)
    return dict(found[0].values)


@pytest.mark.parametrize("name", ["chat", "serve"])
def test_a_flag_goes_before_a_variable_before_the_file_before_what_is_built_in(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, f"pace = 0.3\n[{name}]\nmax-tokens = 33\n")
    usual = parsed(name)["max_tokens"]
    assert usual not in (33, 44, 55)
    assert parsed(name, "--config", str(config))["max_tokens"] == 33
    monkeypatch.setenv("PD_DEVICE_MAX_TOKENS", "44")
    assert parsed(name, "--config", str(config))["max_tokens"] == 44
    assert parsed(name, "--config", str(config), "--max-tokens", "55")["max_tokens"] == 55
    assert parsed(name, "--max-tokens", "55", "--config", str(config))["pace"] == 0.3
    sources = reported(name, config)
    assert sources["pace"] == ("0.3", str(config))
    assert sources["max-tokens"] == ("44", "variable PD_DEVICE_MAX_TOKENS")
    assert sources["mode"] == ("pd-device", "built in")


@pytest.mark.parametrize("name", ["chat", "serve", "doctor", "calibrate", "plan"])
def test_every_option_has_its_variable_and_the_help_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    options = [each for each in offered(PROGRAM.commands[name]) if each.stored]
    assert len(options) > 7
    told = CliRunner().invoke(app, [name, "--help"]).output
    for option in options:
        assert PROGRAM.variable(option) == f"PD_DEVICE_{option.name.upper()}"
        assert f"[env var: {PROGRAM.variable(option)}]" in told
        assert f"--{option.spelt} " in told


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MAX_TOKENS", "0", "--max-tokens: Input should be greater than or equal to 1"),
        ("MAX_TOKENS", "many", "--max-tokens: Input should be a valid integer"),
        ("PORT", "99999", "--port: Input should be less than or equal to 65535"),
        ("MODE", "both", "--mode: Input should be 'device-only', 'cloud-only' or 'pd-device'"),
        ("TLS", "perhaps", "--tls: Input should be a valid boolean"),
        ("PACE", "inf", "--pace: Input should be less than or equal to 60"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name_and_its_option_s(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"PD_DEVICE_{variable}", value)
    with pytest.raises(ConfigError) as refused:
        parsed("serve")
    assert f"PD_DEVICE_{variable} = {value!r}, which sets {words}" in str(refused.value)
    monkeypatch.setenv(f"PD_DEVICE_{variable}", "")  # as where there is none
    parsed("serve")


def test_variables_hold_booleans_and_lists_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PD_DEVICE_STOP", "END  STOP")
    monkeypatch.setenv("PD_DEVICE_TLS", "yes")
    assert parsed("chat")["stop"] == ("END", "STOP")
    assert parsed("chat")["tls"] is True
    assert parsed("chat", "--stop", "a b", "--stop", "c")["stop"] == ("a b", "c")


def test_a_secret_comes_from_its_variable_alone_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PD_DEVICE_API_KEY", "hunter2")
    monkeypatch.setenv("PD_DEVICE_CLIENT_KEY", "hunter2")
    for name in ("chat", "serve", "doctor"):
        settings = PROGRAM.commands[name]
        read = read_sources(PROGRAM, name, settings, {})
        assert read.values["api_key"] == "hunter2"
        assert "hunter2" not in repr(read) + repr(composed(settings, read.values))
        assert "api-key" not in {option.spelt for option in offered(settings) if option.stored}
    assert "hunter2" not in str([*report(None)])


def test_every_kind_of_value_is_taken_and_paths_begin_where_the_file_is(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        'tls = true\ntls-ca = "ca.pem"\nmodel = "./models/x"\nmode = "cloud-only"\n'
        "[chat]\nstop = ['a b', 'c']\ntop_k = 5\ntemperature = 1\n[serve]\nport = 9001\n",
    )
    chat = parsed("chat", "--config", str(config))
    assert chat["tls"] is True
    assert chat["tls_ca"] == tmp_path / "ca.pem"
    assert chat["model"] == str(tmp_path / "models" / "x")
    assert chat["mode"].value == "cloud-only"
    assert chat["stop"] == ("a b", "c")
    assert (chat["top_k"], chat["temperature"]) == (5, 1.0)
    assert parsed("serve", "--config", str(config))["port"] == 9001
    assert parsed("doctor", "--config", str(config))["port"] == 9001


def test_the_file_is_found_in_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PROGRAM.config_path(None) is None
    usual = tmp_path / "config" / "pd-device" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text("pace = 0.4")
    assert PROGRAM.config_path(None) == usual
    assert parsed("chat")["pace"] == 0.4
    other = write(tmp_path, "pace = 0.5")
    monkeypatch.setenv("PD_DEVICE_CONFIG", str(other))
    assert parsed("chat")["pace"] == 0.5
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert PROGRAM.config_path(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 1", "modle is no setting; did you mean model?"),
        ("pase = 1", "pase is no setting; did you mean pace?"),
        ("[serve]\nprot = 1", r"\[serve\] prot is no setting; did you mean port?"),
        ("[chat]\nport = 1", r"\[chat\] port is no setting"),
        ("prompt = 'x'", "prompt is no setting"),
        ("config = 'x'", "config is no setting"),
        ("[server]\nport = 1", r"no table \[server\]"),
        ("api-key = 'hunter2'", "is a secret.*give api-key-file"),
        ("client_key = 'hunter2'", "is a secret.*give client-key-file"),
        ("port = 80.5", r"port = 80.5: "),
        ("port = 'eighty'", r"port = 'eighty': "),
        ("port = 99999", r"port = 99999: "),
        ("port = true", r"port = True: "),
        ("port = [1]", "it takes one value"),
        ("port = 2020-01-01", "it must be a text, a number, true or false"),
        ("pace = 0", r"pace = 0: "),
        ("pace = inf", r"pace = inf: "),
        ("ttft = 1e9", r"ttft = 1000000000.0: "),
        ("mode = 'both'", r"mode = 'both': "),
        (
            "throttle = 'toaster'",
            r"throttle = 'toaster': .*'edge-box', 'laptop', .* or 'slow'",
        ),
        ("log-level = 'loud'", r"log-level = 'loud': .*'debug', 'info', 'warning' or 'error'"),
        ("[chat]\nstop = 'x'", "it takes a list"),
        ("[chat]\nstop = [['x']]", "it must be a text"),
        ("max-tokens = 5\nmax_tokens = 6", "stands there twice"),
        ("pace = ", "is not TOML"),
        ("pace = 1\npace = 2", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    config = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as refused:
        parsed("serve", "--config", str(config))
    assert str(config) in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no settings file"):
        parsed("chat", "--config", str(tmp_path / "none.toml"))
    config = tmp_path / "settings.toml"
    config.write_bytes(b"pace = '\xff'")
    with pytest.raises(ConfigError, match="is not text"):
        parsed("chat", "--config", str(config))


def test_what_stands_in_the_file_s_place_and_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "config" / "pd-device" / "config.toml"
    usual.mkdir(parents=True)
    with pytest.raises(ConfigError, match="is no file of settings; see --config FILE"):
        parsed("chat")
    with pytest.raises(ConfigError, match="/dev/zero is no file of settings"):
        parsed("chat", "--config", "/dev/zero")

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    monkeypatch.setattr(Path, "is_file", denied)
    for words in ([], ["--config", "another.toml"]):
        with pytest.raises(ConfigError, match=r"Permission denied.*make it readable"):
            parsed("chat", *words)


# Whole commands


@pytest.fixture
def run() -> Run:
    def command(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return run_here(main, *words, stdin=stdin)

    return command


def test_doctor_shows_where_each_value_comes_from(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "model = 'random-tiny'\n[serve]\nport = 0\n[chat]\nseed = 3\n")
    monkeypatch.setenv("PD_DEVICE_THREADS", "1")
    done = run("doctor", "--config", str(config))
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split()[:3]): line for line in done.stdout.splitlines()}
    assert str(config) in rows["serve", "port", "0"]
    assert str(config) in rows["chat", "seed", "3"]
    assert "variable PD_DEVICE_THREADS" in rows["chat", "threads", "1"]
    assert not any(line.startswith("chat  mode") for line in done.stdout.splitlines())
    all_of_them = run("doctor", "--config", str(config), "--settings").stdout
    assert "built in" in all_of_them


def test_a_chat_runs_by_its_file_and_a_pipe_gives_the_prompt(run: Run, tmp_path: Path) -> None:
    config = write(tmp_path, "model = 'random-tiny'\n[chat]\nmax-tokens = 5\nseed = 3\npace = 0.01")
    flags = ("--model", "random-tiny", "--max-tokens", "5", "--seed", "3", "--pace", "0.01")
    by_flags = run("chat", "hello", *flags)
    by_file = run("chat", "--config", str(config), stdin="hello")
    assert by_flags.returncode == 0, by_flags.stderr
    assert by_file.stdout == by_flags.stdout


def test_a_wrong_file_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    config = write(tmp_path, "[serve]\nprot = 1")
    done = run("serve", "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == (
        f"pd-device: {config}: [serve] prot is no setting; did you mean port? (the names are those "
        "of the options, without the dashes before)\n"
    )


def test_help_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PD_DEVICE_CONFIG", str(write(tmp_path, "nonsense = ")))
    assert CliRunner().invoke(app, ["serve", "--help"]).exit_code == 0


def test_a_variable_in_small_letters_is_somebody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PD_DEVICE_PORT", "9001")
    monkeypatch.setenv("pd_device_port", "abc")
    monkeypatch.setenv("Pd_Device_Host", "nowhere")
    assert parsed("serve")["port"] == 9001
    assert parsed("serve")["host"] == "127.0.0.1"
