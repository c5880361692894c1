"""The comparison of engines with scripted servers: what runs when, and what comes of it."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from pd_bench.clouds import comparison as cloud_comparison
from pd_bench.clouds import kv_blocks
from pd_bench.clouds.closed_loop import CloudAnswer
from pd_bench.clouds.comparison import CloudComparison
from pd_bench.clouds.kv_blocks import kv_blocks_of
from pd_bench.clouds.report import print_comparison
from pd_bench.clouds.result import CloudDocument, CloudPass, CloudScheme, equal_rows
from pd_bench.clouds.result import throughput_ratio as ratio_of
from pd_bench.clouds.settings import CloudSettings
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.harness.server_process import ServerOptions
from pd_core.errors import CloudUnavailable, EngineError, QueueFull
from pd_core.files.ready_file import ReadyServer
from tests.scripted_cloud import Script, ScriptedCloud

METRICS = "# TYPE pd_kv_blocks gauge\npd_kv_blocks {}\n# TYPE other gauge\nother 3.0\n"


class Listener:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.num_ended = 0

    def starting(self, what: str) -> None:
        self.told.append(f"starting {what}")

    def begin(self, what: str, num_requests: int) -> None:
        self.told.append(f"{what}: {num_requests}")

    def ended(self, answer: CloudAnswer) -> None:
        self.num_ended += 1


class Servers:
    """Stands for real server processes: vLLM's is twice as slow as torch's here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[ServerOptions] = []
        self.clouds: dict[str, ScriptedCloud] = {}
        self.scripts = {
            "torch": Script(step_s=0.01),
            "vllm": Script(step_s=0.02, first_token_s=0.6),
        }
        self.running = 0
        monkeypatch.setattr(cloud_comparison, "serving", self.serving)
        monkeypatch.setattr(kv_blocks, "serving", self.serving)
        monkeypatch.setattr(cloud_comparison, "GrpcCloudLink", self.link)
        monkeypatch.setattr(kv_blocks, "_read_kv_blocks", self.read_kv_blocks)

    @asynccontextmanager
    async def serving(self, options: ServerOptions) -> AsyncIterator[ReadyServer]:
        assert self.running == 0, "never two servers at once"
        self.running += 1
        self.started.append(options)
        name = f"{options.engine}{len(self.started)}"
        self.clouds[name] = ScriptedCloud(self.scripts[options.engine])
        try:
            yield ReadyServer(name, name, os.getsid(0))
        finally:
            self.running -= 1

    def link(self, target: str) -> ScriptedCloud:
        return self.clouds[target]

    async def read_kv_blocks(self, http_address: str) -> int:
        return 97 * 4 if self.started[-1].model.endswith("mha") else 128 * 4


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    return Servers(monkeypatch)


def _settings(**changes: Any) -> CloudSettings:
    fields: dict[str, Any] = {
        "limit": 6,
        "slots": 2,
        "prompt_tokens": 30,
        "output_tokens": 20,
        "repeat": 2,
        "kv_blocks": False,
        "vllm_python": Path(sys.executable),
    }
    return CloudSettings(**(fields | changes))


def test_engines_and_schemes_take_turns_on_fresh_servers(servers: Servers) -> None:
    listener = Listener()
    document = run_virtual(CloudComparison(_settings(), listener).run())
    assert listener.told == [
        "starting torch, pass 1 of 2",
        "torch cloud-only: 6",
        "torch pd-device: 6",
        "starting vllm, pass 1 of 2",
        "vllm cloud-only: 6",
        "vllm pd-device: 6",
        "starting vllm, pass 2 of 2",
        "vllm pd-device: 6",
        "vllm cloud-only: 6",
        "starting torch, pass 2 of 2",
        "torch pd-device: 6",
        "torch cloud-only: 6",
    ]
    assert listener.num_ended == 2 * 2 * 2 * 6
    assert len(servers.clouds) == 4
    assert document.valid
    assert document.engines["torch"].schemes["cloud-only"].requests == 12
    assert document.labels[1].startswith("2 requests in flight")


def test_all_servers_are_asked_the_same_and_share_no_prompt(servers: Servers) -> None:
    run_virtual(CloudComparison(_settings(), Listener()).run())
    asked = []
    salts = []
    for cloud in servers.clouds.values():
        starts = [start for start in cloud.starts if not start.request_id.endswith("--1")]
        asked.append(
            sorted(
                (start.prompt_token_ids, start.token_limit, start.sampling.forced_length)
                for start in starts
            )
        )
        salts.append({start.cache_salt for start in starts})
        limits: dict[tuple[int, ...], list[int]] = {}
        for start in starts:
            limits.setdefault(start.prompt_token_ids, []).append(start.token_limit)
        for start in starts:
            whole = start.sampling.forced_length
            assert whole is not None
            assert sorted(limits[start.prompt_token_ids]) == [min(14, whole), whole]
    assert asked[0] == asked[1] == asked[2] == asked[3]
    assert len({prompt for prompt, _, _ in asked[0]}) == 6
    assert all(len(one) == 2 for one in salts), "one a scheme"
    assert len(set().union(*salts)) == 8


def test_ratios_and_figures(servers: Servers) -> None:
    document = run_virtual(CloudComparison(_settings(kv_blocks=True), Listener()).run())
    torch, vllm = document.engines["torch"], document.engines["vllm"]
    whole, part = document.throughput_ratio["cloud-only"], document.throughput_ratio["pd-device"]
    assert whole is not None
    assert part is not None
    assert whole == pytest.approx(2.0, abs=0.05)
    assert part == pytest.approx(2.0, abs=0.05)
    assert torch.schemes["cloud-only"].ttft_s.p50 == pytest.approx(0.3)
    assert vllm.schemes["cloud-only"].ttft_s.p50 == pytest.approx(0.6)
    assert torch.schemes["cloud-only"].tokens == vllm.schemes["cloud-only"].tokens
    assert (document.equal_rows["cloud-only"].equal, document.equal_rows["cloud-only"].rows) == (
        6,
        6,
    )
    assert document.kv_blocks_ratio == {name: pytest.approx(128 / 97) for name in ("torch", "vllm")}
    assert torch.kv_blocks is not None
    assert torch.kv_blocks.by_formula == pytest.approx(128 / 97)
    counting = [o for o in servers.started if o.kv_cache_mib == 512]
    assert [o.engine for o in counting] == ["torch", "torch", "vllm", "vllm"]
    assert counting[-1].flags == ("--eager",), "nothing is computed there"
    read = CloudDocument.model_validate_json(document.model_dump_json())
    assert read == document
    shown = StringIO()
    print_comparison(document, Console(file=shown, width=120))
    assert "throughput, torch over vllm, cloud-only: 2.0" in shown.getvalue()
    assert "SkipV1Former 512: 1.320 times" in shown.getvalue()
    assert "INVALID" not in shown.getvalue()


def test_one_engine_alone_has_no_ratio(servers: Servers) -> None:
    document = run_virtual(CloudComparison(_settings(engines=("torch",)), Listener()).run())
    assert document.throughput_ratio == {}
    assert document.kv_blocks_ratio == {}
    assert list(document.engines) == ["torch"]


def test_failed_requests_make_it_invalid_and_are_shown(servers: Servers) -> None:
    # The warm-ups are the first stream and the eighth.
    servers.scripts["vllm"].refuse = lambda n: QueueFull("full") if n == 3 else None
    document = run_virtual(CloudComparison(_settings(repeat=1), Listener()).run())
    assert document.invalid_because == ("vllm cloud-only: 1 of 6 requests failed",)
    assert not document.valid
    assert document.equal_rows["cloud-only"].equal == 5
    shown = StringIO()
    print_comparison(document, Console(file=shown, width=120))
    assert "vllm: QueueFull: full" in shown.getvalue()
    assert "INVALID: vllm cloud-only: 1 of 6 requests failed" in shown.getvalue()


def test_a_warm_up_that_fails_ends_it(servers: Servers) -> None:
    servers.scripts["torch"].refuse = lambda _: QueueFull("full")
    with pytest.raises(EngineError, match="warm-up request of cloud-only failed: QueueFull"):
        run_virtual(CloudComparison(_settings(), Listener()).run())
    assert servers.running == 0


def _pass(repeat: int, requests_per_s: float) -> CloudPass:
    return CloudPass(
        repeat=repeat,
        requests=10,
        failed=0,
        tokens=100,
        wall_s=1.0,
        requests_per_s=requests_per_s,
        tokens_per_s=100.0,
        server_cpu_s=0.5 * (repeat + 1),
    )


def test_the_ratio_is_the_median_of_pairs() -> None:
    torch = CloudScheme.of([_pass(i, rate) for i, rate in enumerate((10.0, 50.0, 6.0))], [])
    vllm = CloudScheme.of([_pass(i, rate) for i, rate in enumerate((5.0, 50.0, 12.0))], [])
    assert torch.server_cpu_s_per_request == pytest.approx((0.5 + 1.0 + 1.5) / 30)
    assert ratio_of(torch, vllm) == 1.0, "pairs of 2, 1 and 0.5; the medians' ratio would be 10/12"
    dead = CloudScheme.of([_pass(i, 0.0) for i in range(3)], [])
    assert ratio_of(torch, dead) is None


def test_failed_answers_equal_none() -> None:
    good = CloudAnswer(0, 1.0, 3, "a", 0.1, None)
    bad = CloudAnswer(0, 1.0, 3, "a", 0.1, "QueueFull: full")
    assert equal_rows([[good], [good]]).equal == 1
    assert equal_rows([[good], [bad]]).equal == 0


def test_a_pass_counts_whole_answers_and_all_tokens() -> None:
    answers = [CloudAnswer(0, 2.0, 10, "a", 0.1, None), CloudAnswer(1, 4.0, 2, "b", 0.1, "gone")]
    summary = CloudPass.of(3, answers, None)
    assert CloudScheme.of([summary], answers).server_cpu_s_per_request is None
    assert (summary.repeat, summary.failed, summary.wall_s) == (3, 1, 4.0)
    assert (summary.requests_per_s, summary.tokens_per_s) == (0.25, 3.0)
    with pytest.raises(ValidationError):
        CloudPass.model_validate(summary.model_dump() | {"speed": 1})


def test_blocks_are_read_from_the_metrics() -> None:
    assert kv_blocks_of(METRICS.format("337.0")) == 337
    for metrics in (METRICS.format("0.0"), ""):
        with pytest.raises(CloudUnavailable, match="how many KV blocks"):
            kv_blocks_of(metrics)
