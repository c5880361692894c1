"""What `simulate --validate` takes from a replay, and which replays it refuses."""

from pathlib import Path

import pytest

from pd_bench.results.provenance import file_sha256
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.validation import read_replay, settings_of
from pd_core.errors import ConfigError
from tests.result_documents import document, record

CLOUD = CLOUD_PROFILES["small-gpu-8b"].model_copy(update={"max_num_seqs": 2})
INPUTS = {"limit": 2, "max_num_seqs": 16, "timeout_s": 60.0}


def _replay(folder: Path, **changes: object) -> Path:
    trace = folder / "trace.csv"
    trace.write_text("rows")
    found = document(
        [record(row, "cloud-only") for row in range(2)],
        **{
            "trace_sha256": file_sha256(trace),
            "settings": INPUTS | {"own_server": True},
            "profiles": {"device": {"name": "slow"}, "link": {"name": "loopback"}},
        }
        | changes,
    )
    path = folder / "replay.json"
    path.write_text(found.model_dump_json())
    return path


def test_a_replay_that_was_ended_early_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was ended early"):
        read_replay(_replay(tmp_path, partial=True, valid=False))
    with pytest.raises(ConfigError, match="its fidelity is 'real'"):
        read_replay(_replay(tmp_path, fidelity="real"))


@pytest.mark.parametrize(("own_server", "slots"), [(True, 16), (False, 2)])
def test_slots_are_those_of_the_server_that_was_replayed(
    tmp_path: Path, own_server: bool, slots: int
) -> None:
    path = _replay(tmp_path, settings=INPUTS | {"own_server": own_server})
    settings = settings_of(read_replay(path), tmp_path / "trace.csv", CLOUD)
    assert settings.cloud.max_num_seqs == slots
