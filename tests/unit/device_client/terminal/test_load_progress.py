"""How far loading is: bytes from the checkpoint, words on a terminal, silence elsewhere."""

import io

from rich.console import Console

from pd_core.checkpoints.loading import load_model
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY, model_directory
from pd_device_client.terminal.load_progress import LoadingLine

GIB = 1 << 30


def test_the_bytes_are_those_of_the_weights_and_end_complete() -> None:
    seen: list[tuple[int, int]] = []
    load_model(DEFAULT_MODEL, progress=lambda *bytes_: seen.append(bytes_))
    size = (model_directory(DEFAULT_MODEL) / "model.safetensors").stat().st_size
    assert {total for _, total in seen} == {size}
    assert [read for read, _ in seen] == sorted(read for read, _ in seen)
    assert seen[0][0] < size / 2
    assert seen[-1] == (size, size)
    assert len(seen) > 20, "it is told as it goes"


def test_a_model_without_files_tells_nothing() -> None:
    seen: list[tuple[int, int]] = []
    load_model(RANDOM_TINY, progress=lambda *bytes_: seen.append(bytes_))
    assert seen == []


def said(*told: tuple[int, int], terminal: bool = True) -> str:
    screen = io.StringIO()
    line = LoadingLine(Console(file=screen, force_terminal=terminal, width=100))
    line(GIB, 2 * GIB)
    with line:
        for read_bytes, size_bytes in told:
            line(read_bytes, size_bytes)
            line._status._live.refresh()
    line(2 * GIB, 2 * GIB)
    return screen.getvalue()


def test_a_large_models_bytes_are_shown_while_it_is_loaded() -> None:
    text = said((3 * GIB // 2, 2 * GIB))
    assert "loading the model: 1536 of 2048 MiB" in text
    assert "1024 of" not in text, "before and after, the line is not there"
    assert "measuring" not in text
    assert "measuring this device" in said((2 * GIB, 2 * GIB))


def test_a_small_models_are_not_and_no_file_gets_any() -> None:
    assert "of" not in said((1 << 20, 2 << 20)).replace("\x1b", "")
    assert said((GIB, 2 * GIB), terminal=False) == ""
