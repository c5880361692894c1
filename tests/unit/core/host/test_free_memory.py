"""Free memory is what the machine and a container leave."""

import sys
from pathlib import Path

from pd_core.host.free_memory import available_bytes, control_group_bytes


def test_memory_is_what_a_container_may_take(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert control_group_bytes(tmp_path, own) == sys.maxsize, "no group limits it"
    for group, limit, used in ((inner, "max", 60), (inner.parent, "100", 80)):
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text("anon 50\ninactive_file 7\n")
    assert control_group_bytes(tmp_path, own) == 100 - 80 + 7
    assert control_group_bytes(tmp_path, tmp_path / "none") == sys.maxsize
    assert 0 < available_bytes() < sys.maxsize
