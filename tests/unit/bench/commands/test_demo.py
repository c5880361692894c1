"""The page that the demo carries on: long enough to show something, short enough for the model."""

from importlib import resources

from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_core.text.tokenizer import Tokenizer

ASSETS = resources.files("pd_bench") / "assets"


def test_the_page_is_of_the_promised_length_and_leaves_room_for_an_answer() -> None:
    tokenizer = Tokenizer.from_file(model_directory(DEFAULT_MODEL) / "tokenizer.json")
    text = (ASSETS / "tutorial-modules.rst.txt").read_text(encoding="utf-8")
    assert 1150 <= len(tokenizer.encode_prompt(text.rstrip())) <= 1350
    assert text.endswith("already defined.\n")


def test_the_page_s_licence_and_notice_come_with_it() -> None:
    licence = (ASSETS / "LICENSE-PYTHON.txt").read_text(encoding="utf-8")
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence
    notice = " ".join((ASSETS / "README.md").read_text(encoding="utf-8").split())
    assert "Copyright © 2001-2023 Python Software Foundation; All Rights Reserved" in notice
