"""`pd-train quantize` and `pd-train quality` from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pd_core.checkpoints.loading import load_model, save_model
from pd_core.errors import ConfigError, ModelError
from pd_training.commands.app import app

pytestmark = pytest.mark.heavy

SHIPPED = "skipv1-python-5m"


def pd_train(*arguments: str | Path) -> str:
    """Run a command in this process and return what it printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "share", "most"), [("8", 0.9, 0.01), ("4", 0.8, 0.1)])
def test_a_model_is_rounded_judged_and_judged_again(
    bits: str, share: float, most: float, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    printed = pd_train("quantize", SHIPPED, out, "--bits", bits, "--tokens", "1024")
    assert "same next" in printed
    first, second = json.loads((out / "quality.json").read_text())
    assert (first["model"], first["agreement"]) == (SHIPPED, 1.0)
    assert (second["model"], second["numerics"]) == ("small", "integer")
    assert share < second["agreement"] < 1.0
    assert abs(second["loss"] - first["loss"]) < most
    assert second["stored_bytes"] < first["stored_bytes"]
    compared = ("--float", out, "--integer", out, "--tokens", "1024", "--json")
    again = json.loads(pd_train("quality", SHIPPED, *compared))
    assert again[0] == first
    assert again[2] == second
    assert (again[1]["numerics"], again[1]["agreement"] > share) == ("float32", True)


def test_a_text_of_one_s_own(tmp_path: Path) -> None:
    text, guide = tmp_path / "text.txt", tmp_path / "guide.txt"
    text.write_text("def add(a, b):\n    return a + b\n\n" * 100)
    guide.write_text("def mul(a, b):\n    return a * b\n\n" * 100)
    options = ("--bits", "4", "--text", text, "--calibrate", guide, "--wide", "down_proj")
    pd_train("quantize", SHIPPED, tmp_path / "out", *options)
    first, _ = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert first["loss"] < 1.0  # the same lines again and again


def test_what_cannot_be_is_said_before_anything_is_written(tmp_path: Path) -> None:
    out, short = tmp_path / "out", tmp_path / "short.txt"
    short.write_text("x")
    load = load_model("random-tiny")
    save_model(tmp_path / "random", load.float_model, load.tokenizer)
    shown: tuple[tuple[list[str], str], ...] = (
        (["quantize", SHIPPED, str(out), "--bits", "5"], "--bits 5 is not supported"),
        (["quantize", SHIPPED, str(out), "--wide", "down_proj"], "are for 4 bits"),
        (["quantize", SHIPPED, str(out), "--bits", "4", "--wide", "x"], "no layer's name"),
        (["quantize", SHIPPED, str(out), "--tokens", "0"], "--tokens is 0"),
        (["quantize", SHIPPED, str(out), "--text", str(tmp_path / "no")], "cannot be read"),
        (["quantize", SHIPPED, str(out), "--text", str(short)], "fewer than the"),
        (["quality", SHIPPED, "--float", str(tmp_path / "random")], "another tokenizer"),
    )
    for arguments, message in shown:
        with pytest.raises((ConfigError, ModelError), match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not out.exists()
