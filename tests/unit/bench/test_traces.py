import gzip
import os
from pathlib import Path

import pytest

from pd_bench.traces import TraceRow, read_trace
from pd_core.errors import TraceError

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n"
    "2023-11-16 18:17:04.0319601,3180,8\n"
)
MOONCAKE = (
    '{"timestamp": 27, "input_length": 1025, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 3027, "input_length": 512, "output_length": 7, "hash_ids": [0]}\n'
)


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "trace"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_azure_rows_count_from_the_first_with_all_seven_decimals(tmp_path: Path) -> None:
    assert list(read_trace(write(tmp_path, AZURE))) == [
        TraceRow(2, 0.0, 4808, 10),
        TraceRow(3, 0.0520001, 3180, 8),
    ]


def test_mooncake_rows_carry_their_block_hashes(tmp_path: Path) -> None:
    assert list(read_trace(write(tmp_path, MOONCAKE))) == [
        TraceRow(1, 0.0, 1025, 5, (0, 1, 2)),
        TraceRow(2, 3.0, 512, 7, (0,)),
    ]


@pytest.mark.parametrize("content", [AZURE, MOONCAKE])
def test_crlf_bom_missing_final_newline_and_trailing_blank_lines_are_fine(
    tmp_path: Path, content: str
) -> None:
    plain = list(read_trace(write(tmp_path, content)))
    for variant in (
        content.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + content.encode(),
        content.rstrip("\n").encode(),
        content.encode() + b"\n\r\n",
    ):
        assert list(read_trace(write(tmp_path, variant))) == plain


def test_the_limit_stops_before_a_broken_row(tmp_path: Path) -> None:
    path = write(tmp_path, AZURE + "broken\n")
    assert len(list(read_trace(path, limit=2))) == 2
    with pytest.raises(TraceError, match="line 4"):
        list(read_trace(path, limit=3))


def test_equal_arrivals_are_in_order(tmp_path: Path) -> None:
    row = "2023-11-16 18:17:03.0000000,1,1\n"
    path = write(tmp_path, AZURE.splitlines(keepends=True)[0] + row + row)
    assert [r.arrival_s for r in read_trace(path)] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("2023-11-16 18:17:01.0000000,1,1", "sort the trace"),
        ("nan,1,1", "TIMESTAMP is 'nan'"),
        ("2023-02-30 00:00:00,1,1", "not a date and time that exists"),
        ("-5,1,1", "TIMESTAMP"),
        ("2023-11-16 18:17:05.0,-1,1", "ContextTokens is '-1'"),
        ("2023-11-16 18:17:05.0,0,1", "ContextTokens is 0"),
        ("2023-11-16 18:17:05.0,1,0", "GeneratedTokens is 0"),
        ("2023-11-16 18:17:05.0,1,1000000000", "between 1 and"),
        ("2023-11-16 18:17:05.0," + "9" * 300 + ",1", "ContextTokens is"),
        ("2023-11-16 18:17:05.0,1.5,1", "whole number"),
        ("2023-11-16 18:17:05.0,nan,1", "whole number"),
        ("2023-11-16 18:17:05.0,\u0661,1", "whole number"),
        ("2023-11-16 18:17:05.0,1", "has 2 columns"),
        ("2023-11-16 18:17:05.0,1,1,1", "has 4 columns"),
        ("\n2023-11-16 18:17:05.0,1,1", "is empty, yet rows follow"),
    ],
)
def test_a_broken_azure_row_is_named_by_its_line(tmp_path: Path, row: str, why: str) -> None:
    with pytest.raises(TraceError, match=f"line 4: .*{why}"):
        list(read_trace(write(tmp_path, AZURE + row + "\n")))


def mooncake(**changes: str) -> str:
    fields = {"timestamp": "4000", "input_length": "3", "output_length": "1", "hash_ids": "[0]"}
    return "{" + ", ".join(f'"{k}": {v}' for k, v in (fields | changes).items()) + "}\n"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (mooncake(timestamp="1"), "sort the trace"),
        (mooncake(timestamp="NaN"), "timestamp"),
        (mooncake(timestamp="-1"), "timestamp"),
        (mooncake(timestamp='"1"'), "timestamp"),
        (mooncake(input_length="0"), "input_length is 0"),
        (mooncake(input_length="1e99"), "input_length"),
        (mooncake(input_length="true"), "input_length"),
        (mooncake(output_length="-3"), "output_length is -3"),
        (mooncake(output_length="1000000000"), "between 1 and"),
        (mooncake(hash_ids="[0, 1]"), "hash_ids has 2 ids"),
        (mooncake(hash_ids="7"), "hash_ids"),
        (mooncake(session="1"), "session"),
        ('{"timestamp": 1}\n', "input_length"),
        ("{\n", "JSON"),
        ("[" * 100_000 + "\n", "JSON"),
    ],
)
def test_a_broken_mooncake_row_is_named_by_its_line(tmp_path: Path, row: str, why: str) -> None:
    with pytest.raises(TraceError, match=f"line 3: .*{why}"):
        list(read_trace(write(tmp_path, MOONCAKE + row)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows"),
        (b"time,prompt,output\n1,2,3\n", "line 1: is neither the header"),
        (gzip.compress(AZURE.encode()), "compressed; unpack it"),
        (AZURE.encode() + b"\xff\xfe\n", "line 4: is not UTF-8"),
        (AZURE.encode() + b"x" * (1 << 20) + b"yy\n", "line 4: is longer than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(TraceError, match=why):
        list(read_trace(write(tmp_path, content)))


def test_a_directory_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="directory"):
        list(read_trace(tmp_path))
    with pytest.raises(TraceError, match="no such file"):
        list(read_trace(tmp_path / "none.csv"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="not a plain file"):
        list(read_trace(tmp_path / "pipe"))
    with pytest.raises(TraceError, match="limit of rows is 0"):
        read_trace(tmp_path, limit=0)


@pytest.mark.skipif("PD_TRACES" not in os.environ, reason="PD_TRACES names no folder of traces")
def test_the_published_traces_are_read_whole() -> None:
    for path in sorted(Path(os.environ["PD_TRACES"]).glob("*.[cj]s*")):
        rows = list(read_trace(path))
        assert len(rows) > 1000
        assert rows[-1].arrival_s > 600
