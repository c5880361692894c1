"""`pd-bench engine`: figures that add up, turns, the summary's rules, and refusals that teach."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from pd_bench.cli import main
from pd_bench.engines.comparison import _round, compare_engines
from pd_bench.engines.contenders import THEIRS, Contender, counterpart
from pd_bench.engines.files import Subject
from pd_bench.engines.report import draw_engines
from pd_bench.engines.result import EngineDocument, EngineFigures, Measured, ThreadsRun
from pd_bench.engines.settings import EngineSettings
from pd_bench.engines.shapes import SHAPES, parse_shapes
from pd_bench.engines.summary import summary
from pd_bench.engines.worker_process import made_files
from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError, ModelError
from pd_core.models import Segment
from pd_device_client.engine.llama_cpp_model import LlamaCppModel
from tests.command_here import run_here

pytestmark = pytest.mark.heavy

LENGTHS = (32, 96)
SETTINGS = EngineSettings(
    shapes=("tiny",),
    threads=(1,),
    numerics=("float32",),
    prefill=LENGTHS,
    decode=LENGTHS,
    rounds=3,
    steps=2,
    chunk=32,
)
OURS_8 = Contender("ours int8", "torch", 8, "int8")
OURS_32 = Contender("ours float32", "torch", 32, "float32")


@pytest.fixture(scope="module")
def measured() -> EngineDocument:
    doing: list[str] = []
    document = compare_engines(SETTINGS, doing.append)
    assert "tiny, 1 threads: round 3 of 3" in doing
    return document


@pytest.mark.slow
def test_our_engine_alone_is_measured(measured: EngineDocument) -> None:
    (subject,) = measured.subjects
    assert (subject.name, subject.random_weights) == ("tiny", True)
    (run,) = subject.runs
    (figures,) = run.engines.values()
    shape = SHAPES["tiny"]
    block = shape.heads * shape.head * shape.width * 2 + shape.kv_heads * shape.head * (
        shape.width * 2
    )
    layer = block + 3 * shape.width * shape.inner + 2 * shape.width
    weights = shape.layers * layer + shape.width + shape.vocab * shape.width
    assert figures.weight_bytes == 4 * weights
    assert figures.kv_bytes_per_token == shape.layers * 2 * shape.kv_heads * shape.head * 4
    for phase in (figures.prefill, figures.decode):
        assert tuple(m.tokens for m in phase) == LENGTHS
        assert all(len(m.rounds) == SETTINGS.rounds for m in phase)
        assert all(m.tokens_per_s == sorted(m.rounds)[1] > 0 for m in phase)
    for m in figures.decode:
        bytes_read = figures.weight_bytes + figures.kv_bytes_per_token * m.tokens
        limit = run.bandwidth_bytes_per_s / bytes_read
        assert m.limit_share == pytest.approx(m.tokens_per_s / limit)
    assert subject.prefill_ratio is None  # there is nothing to compare with
    assert subject.decode_ratio == {}
    assert subject.limit_share == min(m.limit_share or 0 for m in figures.decode)


@pytest.mark.slow
def test_the_document_can_be_read_again_and_shown(measured: EngineDocument) -> None:
    again = EngineDocument.model_validate_json(measured.model_dump_json())
    assert again == measured
    assert {"hardware", "versions", "settings"} <= json.loads(measured.model_dump_json()).keys()
    assert draw_engines(again).startswith(b"\x89PNG")


def _run(**engines: tuple[float, float]) -> ThreadsRun:
    """A run of engines with (prefill, decode) tokens per second at one length."""
    figures = {
        name.replace("_", " "): EngineFigures(
            load_s=1.0,
            weight_bytes=100,
            kv_bytes_per_token=1,
            peak_bytes=200,
            memory_ratio=1.5,
            prefill=(Measured.of(128, [prefill] * 3, None),),
            decode=(Measured.of(128, [decode] * 3, 1000.0),),
        )
        for name, (prefill, decode) in engines.items()
    }
    return ThreadsRun(threads=1, bandwidth_bytes_per_s=1e9, load_average=None, engines=figures)


def test_the_summary_takes_the_lowest_ratio_at_equal_bits() -> None:
    theirs = [Contender("q8", "llama-cpp", 8, "Q8_0"), Contender("q4", "llama-cpp", 4, "Q4_0")]
    tested = [OURS_32, OURS_8, *theirs]
    runs = [
        _run(ours_float32=(10, 10), ours_int8=(40, 60), q8=(20, 50), q4=(25, 80)),
        _run(ours_float32=(10, 16), ours_int8=(50, 50), q8=(20, 50), q4=(25, 80)),
    ]
    found = summary(tested, runs)
    assert found.prefill_ratio == 2.0
    assert found.decode_ratio == {"int8": 1.0, "int4": 10 / 80}
    assert found.compared == {"int8": "ours int8", "int4": "ours float32"}
    assert found.limit_share == 0.05
    assert found.memory_ratio == 1.5
    assert summary([OURS_8], runs).decode_ratio == {}


def test_ratios_are_those_of_rounds_side_by_side() -> None:
    slow_machine = Measured.of(1, [1.0, 10.0, 100.0], None)
    same = Measured.of(1, [2.0, 20.0, 50.0], None)
    assert slow_machine.over(same) == 0.5


def test_an_engine_of_ours_is_compared_at_its_bits_or_the_widest_stands_in() -> None:
    assert counterpart([OURS_32, OURS_8], 8) == OURS_8
    assert counterpart([OURS_8, OURS_32], 4) == OURS_32
    assert {t.bits for t in THEIRS["llama-cpp"]} == {8, 4}


class _Recorded:
    def __init__(self, name: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
        self._name, self._calls = name, calls

    def ask(self, **asked: Any) -> dict[str, Any]:
        self._calls.append((self._name, asked))
        return {"seconds": 2.0}


def test_engines_take_turns_and_a_long_prompt_goes_on_from_the_shorter() -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    rates: dict[tuple[str, str, int], list[float]] = {}
    workers: Any = {name: _Recorded(name, calls) for name in ("a", "b", "c")}
    _round(SETTINGS, workers, 1, rates)
    for i in range(0, len(calls), 3):
        same = [asked for _, asked in calls[i : i + 3]]
        assert same[0] == same[1] == same[2]
        assert {name for name, _ in calls[i : i + 3]} == {"a", "b", "c"}
    assert all(one != other for one, other in pairwise(name for name, _ in calls[::3]))
    prefill = [asked for name, asked in calls if name == "a" and asked["do"] == "prefill"]
    assert [(p["start"], p["end"]) for p in prefill] == [(0, 32), (32, 96)]
    assert rates["a", "prefill", 96] == [96 / 4.0]
    assert rates["a", "decode", 32] == [0.5]


def test_what_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="known: tiny"):
        parse_shapes("7b")
    with pytest.raises(ConfigError, match="nothing to measure"):
        EngineSettings(prefill=(), decode=())
    with pytest.raises(ConfigError, match="--shape tiny"):
        EngineSettings(model="random-tiny")
    monkeypatch.setattr("pd_bench.engines.settings.is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"pd-device\[llama-cpp\]"):
        EngineSettings(against=("llama-cpp",))


@pytest.mark.slow
def test_a_model_that_cannot_be_had_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        compare_engines(
            EngineSettings(model=str(tmp_path / "no-such-model"), threads=(1,)), lambda _: None
        )


def test_both_sides_run_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    files = made_files(Subject("tiny", True, ("Q8_0", "Q4_0"), str(tmp_path), 0))
    ours = load_model(files["ours"]).model
    ids = list(range(50, 90))
    hidden = ours.forward(torch.tensor(ids), [Segment(ours.make_cache(64), 0, len(ids))])
    expected = ours.logits(hidden[-1:])[0]
    distances = {}
    for kind in ("Q8_0", "Q4_0"):
        model = LlamaCppModel(Path(files[kind]), context_tokens=64, pass_tokens=64, num_threads=1)
        logits = model.run(0, 0, ids, wants_logits=True)
        model.close()
        assert logits is not None
        distances[kind] = float((torch.from_numpy(logits)[:1024] - expected[:1024]).abs().mean())
    spread = float(expected[:1024].std())
    assert distances["Q8_0"] < 0.05 * spread
    assert distances["Q8_0"] < distances["Q4_0"] < 0.5 * spread


@pytest.mark.slow
def test_the_command_measures_and_writes(tmp_path: Path) -> None:
    out, plot = tmp_path / "engine.json", tmp_path / "engine.png"
    words = ["engine", "--shape", "tiny", "--threads", "1", "--rounds", "1", "--steps", "1"]
    words += ["--numerics", "float32,integer-4"]
    words += ["--prefill", "32", "--decode", "none", "--json", str(out), "--plot", str(plot)]
    done = run_here(main, *words)
    assert done.returncode == 0, done.stderr
    assert "float32" in done.stdout
    (subject,) = EngineDocument.model_validate_json(out.read_text()).subjects
    engines = subject.runs[0].engines
    assert engines["float32"].decode == ()
    assert 0 < 4 * engines["integer-4"].weight_bytes < engines["float32"].weight_bytes
    assert plot.read_bytes().startswith(b"\x89PNG")
    refused = run_here(main, *words[:-2], "--plot", str(out))
    assert refused.returncode == 2
