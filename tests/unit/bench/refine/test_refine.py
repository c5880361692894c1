"""`pd-bench refine`: every way of choosing keeps as much, and all are judged alike."""

import json
import math
from pathlib import Path

import pytest
import torch

from pd_bench.cli import main
from pd_bench.refine.handoff_time import measure_ready_times
from pd_bench.refine.quality import measure_quality
from pd_bench.refine.reading import answer, judge, read
from pd_bench.refine.selection import METHODS, scores_of
from pd_bench.refine.settings import RefineSettings, parse_ratios
from pd_bench.refine.texts import document, needles, passages
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError
from tests.command_here import run_here

SETTINGS = RefineSettings(
    model="random-tiny", ratios=(0.5,), passages=2, needles=2, prompt_tokens=200, answer_tokens=6
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.mark.slow
def test_what_is_kept_in_full_is_judged_as_the_full_prompt(loaded: LoadedModel) -> None:
    model, [passage] = loaded.model, passages(loaded, document(None), 1, 300, 8)
    whole = ((0, 300),)
    full = read(model, passage.prompt, whole, 8)
    made = answer(model, full, 8)
    with torch.inference_mode():
        again = read(model, passage.prompt, ((0, 100), (100, 300)), 8)
        assert torch.equal(full.hidden, again.hidden)
        assert judge(model, full, made) == judge(model, again, made)
        assert judge(model, full, made).agreement == 1.0


def test_self_information_is_that_of_each_token(loaded: LoadedModel) -> None:
    model, prompt = loaded.model, list(range(10, 210))
    with torch.inference_mode():
        full = read(model, prompt, ((0, 200),), 4)
        found = scores_of("self-information", model, prompt, [1], full, 0)
        logits = model.logits(full.hidden).log_softmax(-1)
        want = [0.0] + [-float(logits[i, prompt[i + 1]]) for i in range(199)]
    assert found.tolist() == pytest.approx(want, abs=1e-5)


@pytest.mark.slow
def test_every_method_is_judged_on_the_same_prompts(loaded: LoadedModel) -> None:
    with torch.inference_mode():
        quality = measure_quality(loaded, SETTINGS, lambda _: None)
    full, *rows = quality.figures()
    assert (full["method"], full["agreement"]) == ("full", 1.0)
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert isinstance(row["kept"], float)
        assert 0.5 <= row["kept"] < 0.75
        assert isinstance(row["agreement"], float)
        assert 0.0 <= row["agreement"] <= 1.0
        assert isinstance(row["answer_perplexity"], float)
        assert math.isfinite(row["answer_perplexity"])
        assert row["needles_found"] in (0.0, 0.5, 1.0)


def test_a_needle_stands_in_its_prompt_and_the_question_at_its_end(loaded: LoadedModel) -> None:
    for needle in needles(loaded, document(None), 4, 300, 3):
        text = loaded.tokenizer.decode(needle.prompt)
        assert needle.answer in text
        assert text.rstrip().endswith("Answer with the number.")
        assert abs(len(needle.prompt) - 300) < 20


async def test_reading_less_leaves_out_more(loaded: LoadedModel) -> None:
    [passage] = passages(loaded, document(None), 1, 900, 1)
    settings = RefineSettings(ratios=(0.5, 0.25), refined_after_s=0.0, rounds=1)
    whole, half, quarter = await measure_ready_times(loaded, passage.prompt, settings)
    assert whole.left_out == 0 < half.left_out < quarter.left_out
    assert min(t.ready_s for t in (whole, half, quarter)) > 0


@pytest.mark.parametrize("text", ["", "0", "1", "0.5,x", "nan", "-0.5", "0.5,,0.2"])
def test_ratios_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="no keep ratio"):
        parse_ratios(text)


def test_ratios() -> None:
    assert parse_ratios("0.75, 0.5,0.5") == (0.75, 0.5)
    with pytest.raises(ConfigError, match="nothing to measure"):
        RefineSettings(passages=0, needles=0, rounds=0)


def test_texts_that_are_too_short_or_none(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a longer --text"):
        passages(loaded, "a short text", 2, 200, 5)
    with pytest.raises(ConfigError, match="give a longer --text"):
        needles(loaded, "a short text", 2, 200, 0)
    with pytest.raises(ConfigError, match="lower --prompt-tokens"):
        passages(loaded, document(None), 1, 1 << 20, 5)
    with pytest.raises(ConfigError, match="cannot be read"):
        document(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        document(tmp_path / "bytes.txt")


@pytest.mark.slow
def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = "--model random-tiny --ratios 0.5 --passages 1 --needles 1 --rounds 1"
    sizes = "--prompt-tokens 160 --answer-tokens 4"
    found = run_here(main, "refine", *options.split(), *sizes.split(), "--json", str(out))
    assert found.returncode == 0, found.stderr
    figures = json.loads(out.read_text())
    assert [row["method"] for row in figures["rows"]] == ["full", *METHODS]
    assert [time["keep_ratio"] for time in figures["times"]] == [1.0, 0.5]
    assert figures["settings"]["ratios"] == [0.5]
