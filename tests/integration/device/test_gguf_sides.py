"""One GGUF file on both sides, and one side in each form: the same text."""

from pathlib import Path

import pytest

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.loading import save_model
from pd_device_client.cli import main
from tests.command_here import run_here
from tests.gguf_files import gguf_config, gguf_model, write_gguf
from tests.real_server import real_server

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


def test_a_cloud_with_the_file_and_a_device_with_the_same_numbers_make_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, file, folder = gguf_config(), tmp_path / "m.gguf", tmp_path / "twin"
    made = gguf_model(config)
    write_gguf(file, config, made.tensors())
    files = read_model_files(file)
    save_model(
        folder,
        made,
        files.tokenizer,
        eos_token_ids=files.eos_token_ids,
        tokenizer_config=files.settings,
    )
    said = {}
    with real_server(tmp_path, "--model", str(file)) as server:
        for model in (file, folder):
            for mode in ("device-only", "cloud-only", "pd-device"):
                cloud = () if mode == "device-only" else ("--cloud", server.address)
                done = run_here(
                    main,
                    *("chat", "hello hello", "--model", str(model), "--mode", mode),
                    *("--max-tokens", "12", "--show-origin", *cloud),
                )
                assert done.returncode == 0, done.stderr
                if mode == "pd-device":
                    assert "identical" in done.stdout + done.stderr
                said[model.name, mode] = done.stdout.partition("\ncloud ")[0]
    assert len(set(said.values())) == 1, said
