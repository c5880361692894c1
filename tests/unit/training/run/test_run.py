"""A run resumes to the bit, keeps whole checkpoints, and says what is wrong."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from pd_core.errors import ConfigError, EngineError
from pd_core.models import ModelConfig
from pd_training.corpus.bpe import EOS_TOKEN, train_tokenizer
from pd_training.corpus.documents import Document
from pd_training.corpus.sequences import PackedSequences
from pd_training.corpus.token_store import TokenStore, write_token_store
from pd_training.model.attention import attend
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import TrainingDirectory, read_training_model
from pd_training.recipe.settings import OptimiserSettings, RunSettings
from pd_training.run.evaluation import evaluate
from pd_training.run.processes import Processes
from pd_training.run.run import RunOutcome, TrainingRun
from pd_training.run.trainer import StepFacts, Trainer

TEXTS = [f"Line {i} says {i * i}, then {i}.\n" * 4 for i in range(60)]
ONE = Processes(0, 1, torch.device("cpu"))
SETTINGS = RunSettings(
    steps=12,
    batch_sequences=4,
    context_tokens=16,
    checkpoint_every=4,
    evaluate_every=6,
    optimiser=OptimiserSettings(lr=0.01, weight_decay=0.1),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return write_token_store(
        tmp_path_factory.mktemp("corpus") / "data",
        [Document(str(i), text) for i, text in enumerate(TEXTS)],
        train_tokenizer(TEXTS, 280),
        eos_token=EOS_TOKEN,
        held_out_fraction=0.2,
    )


def start(store: TokenStore, seed: int = 0) -> TrainingDirectory:
    config = ModelConfig(
        vocab_size=store.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=4,
        max_context_tokens=64,
        tie_word_embeddings=True,
        skip_v1=True,
    )
    return TrainingDirectory(TrainingModel(config, seed), store.tokenizer, (store.eos_token_id,), 0)


def losses(directory: Path) -> list[str]:
    with (directory / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def kill_after(step: int, facts: StepFacts) -> None:
    if facts.step == step:
        raise Killed


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "conda"])
def test_a_killed_run_gives_the_same_losses_and_weights(
    name: str, store: TokenStore, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, optimiser=OptimiserSettings(name=name, lr=0.01, conda_period=5))
    whole = TrainingRun(tmp_path / "whole", start(store), store, settings, ONE).execute()
    killed = TrainingRun(tmp_path / "killed", start(store), store, settings, ONE)
    with pytest.raises(Killed):
        killed.execute(lambda facts: kill_after(7, facts))
    with (tmp_path / "killed" / "metrics.csv").open("a") as file:
        file.write("8,512,5.1")  # the kernel killed it in the middle of a row
    resumed = TrainingRun(
        tmp_path / "killed", start(store, seed=99), store, settings, ONE, resume=True
    )
    steps: list[int] = []
    outcome = resumed.execute(lambda facts: steps.append(facts.step))
    assert steps == list(range(5, 13)), "it goes on from the checkpoint of step 4"
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(set(losses(tmp_path / "whole"))) == 12
    assert outcome.model is not None
    assert whole.model is not None
    one, two = (
        read_training_model(path).model.state_dict() for path in (whole.model, outcome.model)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_what_a_killed_process_left_half_written_goes_away(
    store: TokenStore, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".run.json.7.part").write_text("{")  # killed before it was a run: begun afresh
    begun = TrainingRun(run, start(store), store, SETTINGS, ONE)
    assert [path.name for path in run.iterdir()] == ["run.json"]
    with pytest.raises(Killed):
        begun.execute(lambda facts: kill_after(7, facts))
    (run / ".model.7.part").mkdir()
    (run / ".model.7.part" / "config.json").write_text("{")
    (run / "checkpoints" / ".step-00000008.7.part").mkdir()
    (run / ".loss.png.part").write_text("half a picture")
    TrainingRun(run, start(store), store, SETTINGS, ONE, resume=True).execute()
    assert not list(run.rglob("*.part"))
    assert (run / "model" / "config.json").is_file()


def test_an_interrupted_run_saves_the_step_it_is_at(store: TokenStore, tmp_path: Path) -> None:
    done: list[int] = []
    run = TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE)
    outcome = run.execute(lambda facts: done.append(facts.step), lambda: len(done) == 5)
    assert outcome == RunOutcome(6, None)
    assert {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()} == {
        "step-00000004",
        "step-00000006",
    }
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    again = TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE, resume=True)
    assert again.execute().step == 12
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000012"]


@pytest.mark.heavy
@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_later(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if "00000008" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("pd_training.run.checkpoint.save_file", fail_later)
    run = TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE)
    with pytest.raises(ConfigError, match="No space left"):
        run.execute()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    monkeypatch.undo()
    again = TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE, resume=True)
    again.execute()
    whole = TrainingRun(tmp_path / "whole", start(store), store, SETTINGS, ONE)
    whole.execute()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.slow
def test_a_full_disk_at_a_resumption_leaves_the_run_resumable(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE)
    run.execute(should_stop=lambda: True)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("run.json", "metrics.csv")}

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    for name in before:
        if name == "metrics.csv":
            monkeypatch.setattr("pd_training.run.run.replace_text", lambda path, text: None)
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(ConfigError, match=f"{name} cannot be written: No space left"):
            TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE, resume=True).execute()
        monkeypatch.undo()
        for kept, content in before.items():
            assert (tmp_path / "run" / kept).read_bytes() == content
    assert not list((tmp_path / "run").glob("*.part"))
    TrainingRun(tmp_path / "run", start(store), store, SETTINGS, ONE, resume=True).execute()
    TrainingRun(tmp_path / "whole", start(store), store, SETTINGS, ONE).execute()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_run_is_neither_overwritten_nor_resumed_as_another(
    store: TokenStore, tmp_path: Path
) -> None:
    place = tmp_path / "run"
    with pytest.raises(ConfigError, match="leave out --resume"):
        TrainingRun(place, start(store), store, SETTINGS, ONE, resume=True)
    TrainingRun(place, start(store), store, SETTINGS, ONE).execute(should_stop=lambda: True)
    with pytest.raises(ConfigError, match="already; go on with it by --resume"):
        TrainingRun(place, start(store), store, SETTINGS, ONE)
    other = replace(SETTINGS, seed=5)
    with pytest.raises(ConfigError, match=r"settings\.seed was 0, is 5"):
        TrainingRun(place, start(store), store, other, ONE, resume=True)
    free = replace(SETTINGS, checkpoint_every=0)
    TrainingRun(place, start(store), store, free, ONE, resume=True).execute()
    with pytest.raises(ConfigError, match="is complete"):
        TrainingRun(place, start(store), store, SETTINGS, ONE, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        TrainingRun(tmp_path / "full", start(store), store, SETTINGS, ONE)
    with pytest.raises(ConfigError, match="is not a folder"):
        TrainingRun(tmp_path / "full" / "file", start(store), store, SETTINGS, ONE)


def test_a_broken_optimiser_state_is_named(store: TokenStore, tmp_path: Path) -> None:
    TrainingRun(tmp_path, start(store), store, SETTINGS, ONE).execute(should_stop=lambda: True)
    state = tmp_path / "checkpoints" / "step-00000001" / "optimiser.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ConfigError, match="missing or broken"):
        TrainingRun(tmp_path, start(store), store, SETTINGS, ONE, resume=True)


def test_accumulation_gives_the_gradient_of_the_whole_batch(store: TokenStore) -> None:
    facts = [
        Trainer(start(store).model, store, replace(SETTINGS, accumulate=n), ONE) for n in (1, 4)
    ]
    for index in range(3):
        one, four = (trainer.step(index) for trainer in facts)
        assert one.loss == pytest.approx(four.loss, abs=1e-5)
        assert one.gradient_l2 == pytest.approx(four.gradient_l2, rel=1e-4)
        assert one.gradient_l1_ratio == pytest.approx(four.gradient_l1_ratio, rel=1e-4)
    with pytest.raises(ConfigError, match="shared evenly"):
        Trainer(start(store).model, store, replace(SETTINGS, accumulate=3), ONE)


def test_bfloat16_is_near_float32_and_not_the_same(store: TokenStore) -> None:
    wide, narrow = (
        Trainer(start(store).model, store, replace(SETTINGS, dtype=dtype), ONE).step(0).loss
        for dtype in ("float32", "bfloat16")
    )
    assert wide != narrow
    assert wide == pytest.approx(narrow, abs=0.02)


@pytest.mark.heavy
@pytest.mark.slow  # half a minute of g++, where its files are not in the compiler's cache yet
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_takes_the_same_steps(store: TokenStore) -> None:
    compiled = Processes(0, 1, torch.device("cpu"), compiled=True)
    plain, fast = (
        Trainer(start(store).model, store, SETTINGS, processes) for processes in (ONE, compiled)
    )
    for index in range(3):
        assert fast.step(index).loss == pytest.approx(plain.step(index).loss, abs=1e-4)
    # What is saved has a checkpoint's names, and is the model that was trained.
    assert list(fast.model.state_dict()) == list(plain.model.state_dict())
    for trained, expected in zip(fast.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(trained, expected, atol=1e-3, rtol=0)


def test_compiling_without_a_compiler_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with (
        pytest.raises(ConfigError, match="C\\+\\+ compiler"),
        Processes.joined("cpu", compiled=True),
    ):
        pass


def test_attention_in_bfloat16_rounds_only_its_inputs_and_output() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 24, 8, generator=generator).bfloat16() for _ in range(3))
    mixed = attend(q, k[:, :2], v[:, :2])
    assert mixed.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(
        q.double(),
        k[:, :2].double().repeat_interleave(2, 1),
        v[:, :2].double().repeat_interleave(2, 1),
        is_causal=True,
    )
    torch.testing.assert_close(mixed, exact.bfloat16(), atol=1e-6, rtol=2**-8)


def test_a_diverged_run_stops_with_its_reason(store: TokenStore) -> None:
    begin = start(store)
    with torch.no_grad():
        begin.model.model.norm.weight.fill_(math.inf)
    with pytest.raises(EngineError, match=r"step 1: .* diverged"):
        Trainer(begin.model, store, SETTINGS, ONE).step(0)


def test_a_foreign_corpus_is_refused(store: TokenStore, tmp_path: Path) -> None:
    foreign = replace(start(store), tokenizer=train_tokenizer(TEXTS, 270))
    with pytest.raises(ConfigError, match="another tokenizer"):
        TrainingRun(tmp_path / "run", foreign, store, SETTINGS, ONE)
    with pytest.raises(ConfigError, match="--max-context"):
        Trainer(start(store).model, store, replace(SETTINGS, context_tokens=128), ONE)


def test_the_finished_model_tells_its_tokens_and_can_be_bfloat16(
    store: TokenStore, tmp_path: Path
) -> None:
    begin = replace(start(store), trained_tokens=1000)
    settings = replace(SETTINGS, steps=2, save_dtype="bfloat16")
    outcome = TrainingRun(tmp_path, begin, store, settings, ONE).execute()
    assert outcome.model is not None
    assert json.loads((outcome.model / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert read_training_model(outcome.model).trained_tokens == 1000 + 2 * 4 * 16


def test_what_nobody_wrote_down_stays_unknown(store: TokenStore, tmp_path: Path) -> None:
    begin = replace(start(store), trained_tokens=None)
    outcome = TrainingRun(tmp_path, begin, store, replace(SETTINGS, steps=2), ONE).execute()
    assert outcome.model is not None
    assert read_training_model(outcome.model).trained_tokens is None


def test_checkpoints_and_the_model_keep_what_belongs_to_it(
    store: TokenStore, tmp_path: Path
) -> None:
    companions = {"generation_config.json": '{"eos_token_id": [0, 1]}', "chat_template.jinja": "x"}
    begin = replace(start(store), companions=companions)
    outcome = TrainingRun(tmp_path, begin, store, replace(SETTINGS, steps=2), ONE).execute()
    assert outcome.model is not None
    for place in (outcome.model, tmp_path / "checkpoints" / "step-00000002"):
        back = read_training_model(place)
        assert (back.companions, back.eos_token_ids) == (companions, (0, 1))


class Recorded(nn.Module):
    """Predicts by position, so that the right losses can be written down."""

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*token_ids.shape, 280)
        return logits + torch.arange(280) * (torch.arange(token_ids.shape[1])[:, None] / 1000)


def test_evaluation_equals_a_slow_one(store: TokenStore) -> None:
    found = evaluate(Recorded(), store.held_out, context_tokens=10, batch_sequences=3)
    sequences = PackedSequences(store.held_out.tokens, 10, seed=None)
    by_position: list[list[float]] = [[] for _ in range(10)]
    for index in range(sequences.num_windows):
        window = torch.from_numpy(sequences.window(index))
        logits = Recorded()(window[None, :-1])[0]
        for i in range(10):
            by_position[i].append(float(F.cross_entropy(logits[i], window[i + 1])))
    every = [x for losses in by_position for x in losses]
    assert found.tokens == len(every)
    assert found.loss == pytest.approx(sum(every) / len(every), abs=1e-5)
    ratio = len(store.held_out.tokens) / store.held_out.text_bytes
    assert found.bits_per_byte == pytest.approx(found.loss / math.log(2) * ratio)
    ranges = [(part.first, part.end) for part in found.by_position]
    assert ranges == [(0, 1), (1, 2), (2, 4), (4, 8), (8, 10)]
    late = by_position[8] + by_position[9]
    assert found.by_position[-1].loss == pytest.approx(sum(late) / len(late), abs=1e-5)
    few = evaluate(Recorded(), store.held_out, context_tokens=10, max_tokens=30)
    assert few.tokens == 30
