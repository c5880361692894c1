"""`pd-bench kv`: sizes against the formulas, figures that add up, and refusals that teach."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pd_bench.cli import main
from pd_bench.commands import kv as kv_command
from pd_bench.harness.paired_timing import PairedTiming
from pd_bench.kv.cost import KvCost, measure_kv_cost, total_weight, within_goal
from pd_bench.kv.report import draw_kv_cost, print_kv_cost
from pd_bench.kv.settings import PAIR_NAMES, PRESETS, KvSettings, VariantShape
from pd_bench.kv.variants import build_model, variant_pair
from pd_core.identity.numerics import unchecked

SETTINGS = KvSettings(
    shape=VariantShape(width=32, inner=48, layers=4, heads=4, kv_heads=2),
    pairs=PAIR_NAMES,
    decode_contexts=(64, 513),
    prefill_contexts=(600,),
    decode_rounds=3,
    prefill_rounds=2,
    fast=True,
    num_threads=1,
    clock="wall",
    seed=0,
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured() -> tuple[KvCost, list[tuple[str, int]]]:
    ticks: list[tuple[str, int]] = []
    return measure_kv_cost(SETTINGS, lambda *tick: ticks.append(tick)), ticks


Measured = tuple[KvCost, list[tuple[str, int]]]


@pytest.mark.slow
def test_caches_are_what_the_papers_say(measured: Measured) -> None:
    mha, mla = 4 * 2 * 32 * 4, 4 * (8 + 4) * 4  # layers, keys and values or latent and key, bytes
    saved = {  # L = 4: (L - 1) / 4L, 1/2 - 1/4L, and half a latent in 3 of 4 layers
        "MHA": (mha, 0.0),
        "SkipV1Former": (mha, 3 / 16),
        "SkipV1-YOCO": (mha, 7 / 16),
        "GQA": (mha / 2, 0.0),
        "GQA+SkipV1": (mha / 2, 3 / 16),
        "MLA": (mla, 0.0),
        "SkipV1-MLA": (mla, 0.25),
    }
    found = {c.name: (c.allocated_bytes, c.formula_bytes, c.saving) for c in measured[0].caches}
    assert found == {name: (b * (1 - s), b * (1 - s), s) for name, (b, s) in saved.items()}


@pytest.mark.slow
def test_every_context_is_timed_and_the_progress_adds_up(measured: Measured) -> None:
    cost, ticks = measured
    assert sum(weight for _, weight in ticks) == total_weight(SETTINGS)
    assert [p.name for p in cost.pairs] == [
        "SkipV1Former",
        "SkipV1-YOCO",
        "GQA+SkipV1",
        "SkipV1-MLA",
    ]
    for pair in cost.pairs:
        assert [(t.context_tokens, t.num_rounds) for t in pair.decode] == [(64, 3), (513, 3)]
        assert [(t.context_tokens, t.num_rounds) for t in pair.prefill] == [(600, 2)]
        for t in (*pair.decode, *pair.prefill):
            assert 0 < t.ratio_low <= t.ratio <= t.ratio_high
            assert min(t.variant_s, t.plain_s) > 0
        assert pair.prefill[0].plain_s > pair.decode[0].plain_s
    assert not cost.reproducible


@pytest.mark.slow
def test_the_report_names_what_was_measured(measured: Measured) -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    slow = PairedTiming(4096, 9, 1.2, 1.0, 1.2, 1.1, 1.3)
    pairs = (replace(measured[0].pairs[0], decode=(slow,), prefill=()),)
    print_kv_cost(replace(measured[0], pairs=pairs), console)
    text = console.export_text()
    for word in ("SkipV1-YOCO", "43.8%", "1.200", "1.100 - 1.300", "MISSED", "fast", "wall clock"):
        assert word in text
    assert draw_kv_cost(measured[0]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("phase", "context", "ratio", "met"),
    [
        ("decode", 4096, 1.05, True),
        ("decode", 4096, 1.06, False),
        ("decode", 4095, 1.10, True),
        ("decode", 512, 1.11, False),
        ("prefill", 512, 1.05, True),
        ("prefill", 512, 1.06, False),
    ],
)
def test_the_goal_is_narrower_for_long_contexts(
    phase: str, context: int, ratio: float, met: bool
) -> None:
    assert within_goal(phase, PairedTiming(context, 9, 1.0, 1.0, ratio, 0.0, 9.0)) is met


def test_presets_have_all_variants() -> None:
    for shape in PRESETS.values():
        for name in PAIR_NAMES:
            pair = variant_pair(shape, name, 0.5)
            assert pair.skip.config.skip_v1
            assert not pair.plain.config.skip_v1
    config = variant_pair(PRESETS["small"], "gqa-skipv1", 0.5).skip.config
    assert 5e6 < sum(p.numel() for p in build_model(config, unchecked("cpu"), 0).parameters()) < 8e6


def test_an_odd_number_of_layers_stops_only_what_needs_an_even_one() -> None:
    shape = replace(SETTINGS.shape, layers=3)
    cost = measure_kv_cost(
        replace(SETTINGS, shape=shape, pairs=("skipv1",), prefill_contexts=()), lambda *_: None
    )
    assert [c.name for c in cost.caches] == ["MHA", "SkipV1Former"]


def test_any_share_of_values_is_measured() -> None:
    """Three KV heads with two of their own: a sixth of the cache is shared in 3 of 4 layers."""
    shape = VariantShape(width=96, inner=48, layers=4, heads=6, kv_heads=3)
    cost = measure_kv_cost(
        replace(SETTINGS, shape=shape, pairs=("gqa-skipv1",), skip_v1_keep=0.6), lambda *_: None
    )
    assert [c.allocated_bytes for c in cost.caches] == [c.formula_bytes for c in cost.caches]
    assert cost.caches[1].saving == pytest.approx(3 / 4 / 6)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", "kv", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--preset", "huge"], "unknown preset 'huge'; known: small, wide"),
        (["--only", "skipv1,v2"], "unknown variant 'v2'; known: skipv1"),
        (["--only", ","], "--only names no variant"),
        (["--decode", "512,4k"], "--decode: '4k' is no context"),
        (["--prefill", "0"], "--prefill: '0' is no context"),
        (["--decode", "999999999"], "no context; give tokens from 1 to 131072"),
        (["--heads", "7"], "cannot be shared by 7 heads"),
        (["--heads", "0"], "cannot be shared by 0 heads"),
        (["--kv-heads", "1"], "there is 1 only"),
        (["--layers", "3"], "even number of layers"),
        (["--inner", "0"], "intermediate_size is 0"),
        (["--skip-v1-keep", "0"], "--skip-v1-keep is 0.0"),
        (["--skip-v1-keep", "1"], "above 0 and below 1"),
        (["--rounds", "1"], "--rounds is 1"),
        (["--prefill-rounds", "0"], "--prefill-rounds is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--clock", "sun"], "unknown clock 'sun'; known: wall, cpu"),
        (["--json", "no/such/folder/x.json"], "cannot be written"),
        (["--plot", "no/such/folder/x.png"], "another file with --plot"),
    ],
)
def test_a_wrong_option_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    why: str,
) -> None:
    assert run(monkeypatch, "--fast", *arguments) == 2
    captured = capsys.readouterr()
    assert why in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_plot_without_matplotlib_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(kv_command, "find_spec", lambda name: None)
    assert run(monkeypatch, "--plot", str(tmp_path / "x.png")) == 2
    assert "install pd-device[bench]" in capsys.readouterr().err


@pytest.mark.slow
def test_figures_go_to_files_and_to_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shape = ("--width", "32", "--heads", "4", "--kv-heads", "2", "--layers", "2", "--inner", "16")
    few = (
        "--decode",
        "8",
        "--prefill",
        "none",
        "--rounds",
        "2",
        "--only",
        "yoco",
        "--clock",
        "cpu",
    )
    files = ("--json", str(tmp_path / "kv.json"), "--plot", str(tmp_path / "kv.png"))
    assert run(monkeypatch, *shape, *few, *files) == 0
    document = json.loads((tmp_path / "kv.json").read_text())
    assert document["pairs"][0]["decode"][0]["context_tokens"] == 8
    assert document["settings"]["clock"] == "cpu"
    assert document["reproducible"] is True
    assert (tmp_path / "kv.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert run(monkeypatch, *shape, *few, "--fast", "--json", "-") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [c["saving"] for c in last["caches"]] == [0.0, 0.375]
