"""`pd-bench cloud` on real servers of the embedded engine; vLLM's are in tests/vllm."""

import subprocess
import sys
from pathlib import Path

import pytest

from pd_bench.clouds.result import CloudDocument

pytestmark = pytest.mark.heavy


@pytest.mark.timeout(300)  # three servers, two of them on models of 32 layers
def test_the_embedded_engine_is_measured_and_its_blocks_counted(tmp_path: Path) -> None:
    out = tmp_path / "cloud.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pd_bench", "cloud", "--engines", "torch"),
            *("--model", "random-tiny", "--limit", "6", "--slots", "2", "--repeat", "1"),
            *("--prompt-tokens", "40", "--output-tokens", "20", "--json", str(out)),
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "starting torch, pass 1 of 1" in done.stderr
    document = CloudDocument.model_validate_json(out.read_text())
    assert document.valid
    assert (document.trace, document.fidelity, document.arrivals) == (
        "generated",
        "real",
        "closed loop",
    )
    engine = document.engines["torch"]
    whole, part = engine.schemes["cloud-only"], engine.schemes["pd-device"]
    assert (whole.requests, whole.failed, part.failed) == (6, 0, 0)
    assert whole.tokens == document.output_tokens.count * (document.output_tokens.mean or 0)
    assert part.tokens < whole.tokens
    assert whole.ttft_s.count == part.ttft_s.count == 6
    assert document.equal_rows["cloud-only"].equal == 6
    blocks = engine.kv_blocks
    assert blocks is not None
    assert blocks.layers == 32
    assert blocks.ratio >= 1.30
    assert document.kv_blocks_ratio == {"torch": blocks.ratio}
    assert str(tmp_path) not in out.read_text()
