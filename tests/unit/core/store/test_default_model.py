"""The trained model in the package: whole, small, loaded by its name, a plain continuer of text."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ModelError
from pd_core.store import model_names
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY, model_directory

MESSAGES = [
    {"role": "system", "content": "  First.\n"},
    {"role": "user", "content": "Second, with <b>marks</b> & more."},
    {"role": "assistant", "content": "def third():"},
]


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return load_model(DEFAULT_MODEL)


def test_it_is_shipped_whole_and_small() -> None:
    directory = model_directory(DEFAULT_MODEL)
    files = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert files.keys() == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert files["model.safetensors"] <= 12_000_000
    # Whoever may read the package may read all of it.
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in directory.iterdir())
    report = inspect_model(DEFAULT_MODEL)
    assert report.name == DEFAULT_MODEL
    assert report.architecture == "SkipV1LlamaForCausalLM"
    assert report.stored_dtypes == ("bfloat16",)
    assert 5_000_000 < report.num_parameters < 6_000_000
    assert report.config.max_context_tokens == 2048
    assert report.num_tokenizer_ids == report.config.vocab_size == 4096
    assert report.kv_bytes_per_token < report.kv_bytes_per_token_plain


def test_it_runs_in_float32_and_is_what_its_directory_is(shipped: LoadedModel) -> None:
    by_path = load_model(str(model_directory(DEFAULT_MODEL)))
    assert (shipped.name, shipped.model.dtype) == (DEFAULT_MODEL, torch.float32)
    assert shipped.fingerprints == by_path.fingerprints
    assert shipped.eos_token_ids == (shipped.tokenizer.token_id("<eos>"),) == (0,)
    assert shipped.fingerprints.weights != load_model(RANDOM_TINY).fingerprints.weights


def test_it_loads_where_nothing_can_be_written(
    shipped: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_model(DEFAULT_MODEL).fingerprints == shipped.fingerprints


def test_its_template_is_the_text_and_nothing_else(shipped: LoadedModel) -> None:
    template, tokenizer = shipped.chat_template, shipped.tokenizer
    assert template is not None
    text = template.render(MESSAGES)
    assert text == "  First.\n\n\nSecond, with <b>marks</b> & more.\n\ndef third():"
    assert template.render(MESSAGES[2:]) == "def third():"
    assert tokenizer.prefix_ids == ()
    assert tokenizer.encode_prompt(text) == tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert "base model" in template.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_makes_the_same_ids(shipped: LoadedModel) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(model_directory(DEFAULT_MODEL))
    template = shipped.chat_template
    assert template is not None
    text = template.render(MESSAGES)
    assert theirs.apply_chat_template(MESSAGES, tokenize=False) == text
    assert theirs(text)["input_ids"] == shipped.tokenizer.encode_prompt(text)
    assert theirs.eos_token_id == 0


def test_it_has_learnt_something(shipped: LoadedModel) -> None:
    """Ordinary Python is likelier than the same tokens in another order."""
    from pd_core.models import Segment

    ids = torch.tensor(shipped.tokenizer.encode("for name in names:\n    print(name)\n" * 4))

    def loss(tokens: torch.Tensor) -> float:
        model = shipped.model
        with torch.inference_mode():
            hidden = model.forward(tokens, [Segment(model.make_cache(len(tokens)), 0, len(tokens))])
            scores = model.logits(hidden[:-1]).float()
        return float(torch.nn.functional.cross_entropy(scores, tokens[1:]))

    shuffled = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))]
    assert loss(ids) < loss(shuffled) - 1


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_installation_without_it_says_so(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_directory(DEFAULT_MODEL), tmp_path / DEFAULT_MODEL)
    monkeypatch.setattr(model_names, "_ASSETS", tmp_path)
    assert load_model(DEFAULT_MODEL).name == DEFAULT_MODEL
    (tmp_path / DEFAULT_MODEL / lost).unlink()
    with pytest.raises(ModelError, match=f"lacks {lost}; install the package again, or name"):
        load_model(DEFAULT_MODEL)


def test_the_name_goes_before_a_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DEFAULT_MODEL).mkdir()
    (tmp_path / DEFAULT_MODEL / "config.json").write_text(json.dumps({}))
    monkeypatch.chdir(tmp_path)
    assert model_directory(DEFAULT_MODEL) != Path(DEFAULT_MODEL)
    assert model_directory(f"./{DEFAULT_MODEL}") == Path(DEFAULT_MODEL)


def test_names_without_files_are_refused() -> None:
    with pytest.raises(ModelError, match=f"no/such.* known names: {DEFAULT_MODEL}, {RANDOM_TINY}"):
        load_model("no/such")
    with pytest.raises(ModelError, match="made on the spot and has no files"):
        inspect_model(RANDOM_TINY)
