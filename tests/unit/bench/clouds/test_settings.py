"""What `pd-bench cloud` refuses before it starts anything, and how it starts servers."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pd_bench.cli import main
from pd_bench.clouds.settings import CloudSettings, parse_engines, rotated
from pd_core.errors import ConfigError, ModelError


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"limit": 0}, "--limit is 0"),
        ({"prompt_tokens": 0}, "--prompt-tokens is 0"),
        ({"output_tokens": -1}, "--output-tokens is -1"),
        ({"cloud_tokens": 0}, "--cloud-tokens is 0"),
        ({"max_prompt_tokens": 0}, "--max-prompt-tokens is 0"),
        ({"max_output_tokens": 0}, "--max-output-tokens is 0"),
        ({"slots": 0}, "--slots is 0"),
        ({"kv_cache_mib": 0}, "--kv-cache-mib is 0"),
        ({"repeat": 0}, "--repeat is 0"),
        ({"max_num_batched_tokens": 1}, "--max-num-batched-tokens is 1; it must be 2 or more"),
        ({"dtype": "int4"}, "unknown dtype 'int4'; known: float32, bfloat16"),
        ({"timeout_s": float("inf")}, "--timeout is inf"),
        ({"engines": ("vllm",), "model": "random-tiny"}, "vLLM cannot run random-tiny"),
        (
            {"engines": ("torch", "vllm"), "vllm_python": Path("no/such/python")},
            "no vLLM environment at no/such/python; build it with make vllm-env",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        CloudSettings(**({"engines": ("torch",)} | changes))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("torch,onnx", "unknown engine 'onnx'; known: torch, vllm"),
        (" , ", "--engines names none; known: torch, vllm"),
        ("torch,torch", "named twice in torch,torch"),
    ],
)
def test_wrong_engines_are_refused(names: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_engines(names)


def test_a_model_that_vllm_cannot_load_is_refused_before_the_first_engine(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="a model in GGUF"):
        CloudSettings(engines=("torch", "vllm"), model=str(gguf))
    CloudSettings(engines=("torch",), model=str(gguf))


def test_an_error_is_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    python = str(tmp_path / "python")
    monkeypatch.setattr("sys.argv", ["pd-bench", "cloud", "--vllm-python", python])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("pd-bench: there is no vLLM environment at")
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_engines_are_read_in_the_order_given() -> None:
    assert parse_engines("vllm, torch") == ("vllm", "torch")
    assert [rotated(("a", "b", "c"), i) for i in (0, 1, 4)] == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("b", "c", "a"),
    ]


def test_generated_rows_are_the_same_each_time_and_lie_around_the_middle() -> None:
    settings = CloudSettings(engines=("torch",), prompt_tokens=100, output_tokens=40, limit=200)
    rows = settings.rows()
    assert rows == settings.rows()
    assert len(rows) == 200
    assert len({row.line for row in rows}) == 200, "each row has a prompt of its own"
    for lengths, middle in (
        ([row.prompt_tokens for row in rows], 100),
        ([row.output_tokens for row in rows], 40),
    ):
        assert min(lengths) >= middle // 2
        assert max(lengths) <= middle * 3 // 2
        assert sum(lengths) / 200 == pytest.approx(middle, rel=0.02)
        assert len(set(lengths)) > middle // 2
    assert len(CloudSettings(engines=("torch",)).rows()) == 64


def test_a_trace_gives_its_own_rows(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,40,4\n"
        "2023-11-16 18:17:04.9,50,5\n2023-11-16 18:17:05.9,60,6\n"
    )
    rows = CloudSettings(engines=("torch",), trace=trace, limit=2).rows()
    assert [(row.prompt_tokens, row.output_tokens) for row in rows] == [(40, 4), (50, 5)]


def test_servers_get_the_same_wherever_both_can(tmp_path: Path) -> None:
    model = str(tmp_path)
    settings = CloudSettings(
        model=model, slots=5, eager=True, fast_numerics=True, vllm_python=Path(sys.executable)
    )
    torch, vllm = (
        settings.server(name, (0, 2)).command(Path("ready.json")) for name in settings.engines
    )
    assert (torch[0], vllm[0]) == (sys.executable, str(settings.vllm_python))
    differing = {*torch} ^ {*vllm}
    of_torch = {"--numerics", "auto", "--fast-numerics"}
    assert differing == {"torch", "vllm", "--eager"} | of_torch
    for option, value in (
        ("--model", model),
        ("--dtype", "float32"),
        ("--max-num-seqs", "5"),
        ("--threads", "2"),
        ("--max-num-batched-tokens", "256"),
        ("--kv-cache-mib", "1024"),
    ):
        assert torch[torch.index(option) + 1] == value
