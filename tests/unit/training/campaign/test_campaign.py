"""A campaign does every cell once, goes on where it stopped, and claims nothing in the spread."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pd_core.errors import ConfigError
from pd_training.campaign.campaign import Campaign, Cell, CellResult, read_result
from pd_training.campaign.cells import (
    CAMPAIGNS,
    SCALES,
    VARIANTS,
    Scale,
    campaign_cells,
    variant_config,
)
from pd_training.campaign.report import (
    draw_report,
    markdown_report,
    paired_difference,
    read_results,
    steps_to,
)
from pd_training.corpus.bpe import EOS_TOKEN, train_tokenizer
from pd_training.corpus.documents import Document
from pd_training.corpus.token_store import TokenStore, write_token_store
from pd_training.model.model import TrainingModel
from pd_training.run.processes import Processes

TINY = Scale(
    hidden=16,
    layers=4,
    heads=4,
    kv_heads=2,
    inter=24,
    latent=4,
    context=16,
    batch=4,
    tokens=16 * 4 * 10,
)
ONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    texts = [f"Line {i} says {i * i}, then {i}.\n" * 4 for i in range(60)]
    return write_token_store(
        tmp_path_factory.mktemp("corpus") / "data",
        [Document(str(i), text) for i, text in enumerate(texts)],
        train_tokenizer(texts, 280),
        eos_token=EOS_TOKEN,
        held_out_fraction=0.2,
    )


def cells(name: str, store: TokenStore) -> list[Cell]:
    return campaign_cells(name, TINY, store.vocab_size, 0.01)


def do_all(name: str, store: TokenStore, place: Path, only: str = "") -> list[CellResult]:
    chosen = [cell for cell in cells(name, store) if only in cell.name]
    campaign = Campaign(chosen, store, place / "work", place / name, ONE)
    for cell in campaign.todo:
        assert campaign.execute(cell) is not None
    return read_results(place / name)


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_cells_have_names_of_their_own(name: str, store: TokenStore) -> None:
    names = [cell.name for cell in cells(name, store)]
    assert len(set(names)) == len(names)


def test_variants_differ_in_what_they_cache_only(store: TokenStore) -> None:
    shapes = {v: variant_config(v, SCALES["2m"], 2048) for v in VARIANTS}
    parameters = {v: TrainingModel(shape).num_parameters() for v, shape in shapes.items()}
    assert 1.6e6 < min(parameters.values()) < max(parameters.values()) < 2.2e6
    assert {
        (s.num_layers, s.hidden_size, s.num_heads, s.intermediate_size) for s in shapes.values()
    } == {(8, 128, 8, 344)}
    quality = [c for c in campaign_cells("quality", SCALES["2m"], 2048, 1e-3) if c.pair == 1]
    assert {c.variant for c in quality} == set(VARIANTS)
    assert len({c.settings for c in quality}) == 1, "a pair has one data order and one schedule"
    assert 3.9e6 < quality[0].settings.steps * quality[0].settings.tokens_per_step < 4.1e6


@pytest.mark.heavy
@pytest.mark.slow
def test_a_cell_is_done_once_and_uptraining_follows(store: TokenStore, tmp_path: Path) -> None:
    quality = do_all("quality", store, tmp_path, "seed0")
    assert {result.variant for result in quality} == set(VARIANTS)
    for result in quality:
        assert result.held_out_loss < result.before_loss - 0.1
        assert result.curve[-1][0] == 10
    kv = {result.variant: result.kv_bytes_per_token for result in quality}
    assert kv["skipv1"] * 16 == kv["mha"] * 13  # (L - 1) / (4 L) saved of L = 4
    assert kv["skipv1-yoco"] * 16 == kv["mha"] * 9  # 1/2 - 1/(4 L)
    again = Campaign(
        cells("quality", store)[:7], store, tmp_path / "work", tmp_path / "quality", ONE
    )
    assert again.todo == []
    uptrained = do_all("uptraining", store, tmp_path, "mean-seed0")
    assert [result.variant for result in uptrained] == ["mean"]
    table = markdown_report("uptraining", uptrained, quality)
    assert "one pair" in table
    with pytest.raises(ConfigError, match="run that campaign with the same --work"):
        do_all("uptraining", store, tmp_path, "mean-seed1")


@pytest.mark.heavy
@pytest.mark.slow
def test_an_interrupted_cell_goes_on(store: TokenStore, tmp_path: Path) -> None:
    cell = replace(cells("quality", store)[0], name="x")
    whole = Campaign([cell], store, tmp_path / "one", tmp_path / "r1", ONE).execute(cell)
    asked = iter([False, False, True])
    campaign = Campaign([cell], store, tmp_path / "two", tmp_path / "r2", ONE)
    assert campaign.execute(cell, should_stop=lambda: next(asked)) is None
    assert not (tmp_path / "r2").exists()
    rest = Campaign([cell], store, tmp_path / "two", tmp_path / "r2", ONE).execute(cell)
    assert whole is not None
    assert rest is not None
    assert (rest.held_out_loss, rest.curve) == (whole.held_out_loss, whole.curve)


@pytest.mark.heavy
@pytest.mark.slow
def test_a_result_of_other_settings_is_refused(store: TokenStore, tmp_path: Path) -> None:
    cell = cells("quality", store)[0]
    Campaign([cell], store, tmp_path / "work", tmp_path / "results", ONE).execute(cell)
    file = tmp_path / "results" / f"{cell.name}.json"
    other = replace(cell, settings=replace(cell.settings, seed=9))
    with pytest.raises(ConfigError, match="other settings"):
        Campaign([other], store, tmp_path / "work", tmp_path / "results", ONE)
    content = json.loads(file.read_text())
    assert content["cell"]["start"].pop("skip_v1_own", "absent") is None
    file.write_text(json.dumps(content))  # as it was before there was such a setting
    assert Campaign([cell], store, tmp_path / "work", tmp_path / "results", ONE).todo == []
    file.write_text(json.dumps(content | {"step_s": 1.0, "more": 2}))
    with pytest.raises(ConfigError, match="not a cell's result"):
        read_result(file)


@pytest.mark.heavy
@pytest.mark.slow
def test_optimisers_are_compared_by_steps_to_the_baselines_loss(
    store: TokenStore, tmp_path: Path
) -> None:
    results = do_all("optimisers", store, tmp_path)
    table = markdown_report("optimisers", results, [])
    lines = [line for line in table.splitlines() if line.startswith("| adamw-cosine")]
    assert len(lines) == 4  # the best, and three rates
    assert "1.00" in lines[0]
    draw_report("optimisers", results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_no_claim_within_the_spread() -> None:
    assert paired_difference([1.0, 2.0, 3.0], [1.1, 2.1, 3.1])[2]
    mean, error, resolved = paired_difference([1.0, 2.0, 3.0], [1.1, 1.9, 3.1])
    assert math.isclose(mean, -1 / 30)
    assert math.isclose(error, 0.2 / 3)
    assert not resolved
    assert paired_difference([1.0], [2.0])[1:] == (math.inf, False)


def test_steps_to_a_loss_lie_between_points() -> None:
    curve = [(10, 4.0), (20, 3.0), (30, 3.5)]
    assert steps_to(curve, 3.25) == 17.5
    assert steps_to(curve, 4.5) == 10.0
    assert steps_to(curve, 2.0) is None
