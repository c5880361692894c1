"""Functions that a model wrote: what is kept is whole, and begins and ends where a line does."""

import ast
import json
import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError
from pd_training.commands.app import app
from pd_training.writing import whole_functions
from pd_training.writing.whole_functions import choose_functions, write_functions

SOURCE = '''import os


def first(path):
    """Return the first line of a file."""
    with open(path) as file:
        return file.readline()


def second(path):
    return os.fspath(path)


def third(a, b):
    return a + b


def fourth(names):
    return sorted(names)
'''


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("skipv1-python-5m", fast=True)


@pytest.fixture(autouse=True)
def short_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_functions, "_BODY_TOKENS", 100)


@pytest.mark.heavy
@pytest.mark.slow
def test_whole_functions_are_kept_behind_what_precedes_them(model: LoadedModel) -> None:
    sampling = model.sampling_defaults.params(seed=1)
    chosen = choose_functions([SOURCE, "no Python (\n"], 1, 9)
    texts = list(write_functions(model, chosen, sampling))
    assert len(texts) == 4
    whole = [text for text in texts if text is not None]
    assert whole
    for text in whole:
        ast.parse(text)
        assert text.startswith("import os\n")
        assert text not in SOURCE
    assert texts == list(write_functions(model, chosen, sampling))
    assert choose_functions([SOURCE], 1, 2) == chosen[:2]
    with pytest.raises(ConfigError, match="no Python function"):
        choose_functions(["x = 1\n", "no Python (\n"], 1, 9)


def test_a_context_that_is_too_short_is_refused(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_functions, "_BODY_TOKENS", 2048)
    chosen = choose_functions([SOURCE], 1, 1)
    with pytest.raises(ConfigError, match="2560 tokens of context, and the model declares 2048"):
        next(write_functions(model, chosen, model.sampling_defaults.params(seed=1)))


def test_what_does_not_parse_or_does_not_end_is_left_out(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = iter(["\n    return (\n", "\n    return 1\n", "\n    pass" * 60, "\n    f()" * 30])
    encode = model.tokenizer.encode
    monkeypatch.setattr(
        whole_functions,
        "continue_prompts",
        lambda loaded, prompts, *rest: (encode(next(bodies))[:100] for _ in prompts),
    )
    sampling = model.sampling_defaults.params(seed=1)
    kinds = [
        text is not None
        for text in write_functions(model, choose_functions([SOURCE], 1, 4), sampling)
    ]
    assert kinds == [False, True, False, False]


def test_a_long_document_is_cut_to_whole_lines_before_the_head(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = model.tokenizer.encode("\n        return 1\n")
    monkeypatch.setattr(
        whole_functions, "continue_prompts", lambda loaded, prompts, *rest: (body for _ in prompts)
    )
    methods = "".join(f"    def name_{i}(self, value):\n        pass\n\n" for i in range(60))
    sampling = model.sampling_defaults.params(seed=1)
    chosen = choose_functions([f"class A:\n{methods}"], 1, 60)
    texts = list(write_functions(model, chosen, sampling))
    assert len(texts) == 60
    assert sum(text is not None and text.startswith("class A:") for text in texts) < 20
    for text in texts:
        assert text is not None
        assert text.startswith(("class A:\n", "    def name_", "        pass\n", "\n"))
        assert text.endswith("(self, value):\n        return 1\n")
        ast.parse(textwrap.dedent(text[text.rindex("    def") :]))


@pytest.mark.heavy
@pytest.mark.slow
def test_the_command_writes_texts_that_prepare_reads(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(SOURCE)
    out = tmp_path / "functions.jsonl"
    arguments = ["functions", "skipv1-python-5m", str(tmp_path / "source.py"), "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"{len(rows)} of 4 functions are whole" in done.output
    assert all(row["text"].startswith("import os\n") for row in rows)
    (tmp_path / "source.py").write_text("x = 1\n")
    nothing = CliRunner().invoke(app, arguments)
    assert isinstance(nothing.exception, ConfigError)
    assert "no Python function to begin" in str(nothing.exception)
    for place, why in ((tmp_path, "no ordinary file"), (tmp_path / "a" / "b", "make it first")):
        refused = CliRunner().invoke(app, [*arguments[:-1], str(place)])
        assert why in str(refused.exception)


def test_ctrl_c_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source.py").write_text(SOURCE)
    out = tmp_path / "functions.jsonl"

    def write(*_: object) -> Iterator[str | None]:
        yield "def first():\n    pass\n"
        os.kill(os.getpid(), signal.SIGINT)
        yield None
        pytest.fail("it went on")

    monkeypatch.setattr(whole_functions, "write_functions", write)
    arguments = ["functions", "skipv1-python-5m", str(tmp_path / "source.py"), "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130
    assert "1 of 2 functions are whole" in done.output
    assert json.loads(out.read_text()) == {"text": "def first():\n    pass\n"}
