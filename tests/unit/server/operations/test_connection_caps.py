import pytest

from pd_server.operations.connection_caps import connection_caps


@pytest.mark.parametrize("open_files", [64, 256, 1024, 20_000, 1 << 20])
def test_both_ports_leave_room_for_the_process_itself(open_files: int) -> None:
    caps = connection_caps(open_files)
    assert min(caps) >= 8
    assert sum(caps) + min(64, open_files // 2) <= open_files
    assert caps.grpc > caps.http


def test_what_a_usual_limit_comes_to() -> None:
    assert connection_caps(256) == (144, 48)
    assert connection_caps(1 << 20) == (8192, 256)
