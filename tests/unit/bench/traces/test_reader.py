import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from pd_bench.traces.reader import SkippedRows, TraceRow, format_name, read_trace
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


BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n"
    "19440111.5,,2,ChatGPT,36,29,65,API log\n"
)
OLD_BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    '45,"Chat,GPT",1087,230,1317,Conversation log\n'
)
QWEN = (
    '{"chat_id": 7, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 33, '
    '"output_length": 132, "type": "text", "turn": 1, "hash_ids": [5, 6, 7]}\n'
    '{"chat_id": 9, "parent_chat_id": 7, "timestamp": 62.0, "input_length": 16, '
    '"output_length": 1, "type": "text", "turn": 2, "hash_ids": [5]}\n'
    '{"chat_id": 11, "parent_chat_id": 9, "timestamp": 62.5, "input_length": 1, '
    '"output_length": 1, "type": "file", "turn": 3, "hash_ids": [8]}\n'
    '{"chat_id": 12, "parent_chat_id": 3, "timestamp": 62.5, "input_length": 1, '
    '"output_length": 1, "type": "file", "turn": 2, "hash_ids": [9]}\n'
)
OWN = (
    '{"format": "pd-trace", "version": 1, "source": "a test", "block_tokens": 4}\n'
    '{"arrival_s": 0.25, "prompt_tokens": 5, "output_tokens": 2, "block_hashes": [1, -2]}\n'
    '{"arrival_s": 0.75, "prompt_tokens": 9, "output_tokens": 3, "session": "s"}\n'
)


def test_burstgpt_rows_have_sessions_where_the_file_has_them(tmp_path: Path) -> None:
    assert list(read_trace(write(tmp_path, BURST))) == [
        TraceRow(2, 0.0, 906, 446, session="1722ac82"),
        TraceRow(3, 1.5, 36, 29),
    ]
    assert list(read_trace(write(tmp_path, OLD_BURST))) == [
        TraceRow(2, 0.0, 472, 18),
        TraceRow(3, 40.0, 1087, 230),
    ]


def test_qwen_rows_belong_to_the_conversation_of_their_first_chat(tmp_path: Path) -> None:
    rows = list(read_trace(write(tmp_path, QWEN)))
    assert rows[0] == TraceRow(1, 0.0, 33, 132, (5, 6, 7), "7", 16)
    # A turn of a turn is the same conversation; a parent before the file's beginning names its own.
    assert [row.session for row in rows] == ["7", "7", "7", "3"]
    assert rows[1].arrival_s == 0.886


def test_our_own_rows_carry_all_there_is(tmp_path: Path) -> None:
    assert list(read_trace(write(tmp_path, OWN))) == [
        TraceRow(2, 0.0, 5, 2, (1, -2), None, 4),
        TraceRow(3, 0.5, 9, 3, None, "s", 4),
    ]


EVERY_FORMAT = {
    "azure": AZURE,
    "burstgpt": BURST,
    "mooncake": MOONCAKE,
    "qwen-bailian": QWEN,
    "pd-trace": OWN,
}


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_format_is_told_by_its_content_also_when_packed(tmp_path: Path, name: str) -> None:
    content = EVERY_FORMAT[name]
    path = write(tmp_path, content)
    assert format_name(path) == name
    plain = list(read_trace(path))
    packed = write(tmp_path, gzip.compress(content.encode()))
    assert format_name(packed) == name
    assert list(read_trace(packed)) == plain


@pytest.mark.parametrize("content", EVERY_FORMAT.values(), ids=EVERY_FORMAT)
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
        (
            "2023-11-16 18:17:05.0," + "9" * 300 + ",1",
            r"is 9{18}\.\.\. \(300 digits\); it must lie",
        ),
        (
            "2023-11-16 18:17:05.0,1" + "0" * 30 + ",1",
            r"is 10{17}\.\.\. \(31 digits\); it must lie",
        ),
        ("2023-11-16 18:17:05.0," + "9" * 5000 + ",1", r"\(5000 digits\); it must lie"),
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
        (mooncake(output_length="1" + "0" * 30), "output_length is 10{30}; it must lie between"),
        (mooncake(hash_ids="[0, 1]"), "hash_ids has 2 ids"),
        (mooncake(hash_ids="7"), "hash_ids"),
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
        (b"time,prompt,output\n1,2,3\n", "line 1: is neither a header with the columns TIMESTAMP"),
        (b"\xff\xfe\n", "line 1: is not UTF-8"),
        (b"x" * (1 << 21), "line 1: is longer than 1048576 bytes"),
        # Without the time in them: every test process must give the cases the same names.
        (gzip.compress(AZURE.encode(), mtime=0)[:-9], "line .: the gzip file is cut short"),
        (
            gzip.compress(AZURE.encode(), mtime=0)[:40] + b"x" * 40,
            "line .: the gzip file is cut short",
        ),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (b"PK\x03\x04 and so on", "compressed by zip; unpack it"),
        (b"\x28\xb5\x2f\xfd and so on", "compressed by zstd"),
        (AZURE.encode() + b"\xff\xfe\n", "line 4: is not UTF-8"),
        (AZURE.encode() + b"x" * (1 << 20) + b"yy\n", "line 4: is longer than 1048576 bytes"),
        (b'{"format": "pd-trace", "version": 2}\n', "line 1: version"),
        (b'{"chat_id": 1}\n', "line 1: timestamp"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(TraceError, match=why):
        list(read_trace(write(tmp_path, content)))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("19440112.0,,2,ChatGPT,36,0,36,API log", "Response tokens is 0"),
        ("19440112.0,,2,ChatGPT,36,29", "has 6 columns; the header has 8"),
        ("-1.0,,2,ChatGPT,36,29,65,API log", "Timestamp is '-1.0'"),
        ("nan,,2,ChatGPT,36,29,65,API log", "Timestamp is 'nan'"),
        ("19440112.0,,2,ChatGPT,1e9,29,65,API log", "Request tokens is '1e9'"),
        ("19440000.0,,2,ChatGPT,36,29,65,API log", "sort the trace"),
    ],
)
def test_a_broken_burstgpt_row_is_named_by_its_line(tmp_path: Path, row: str, why: str) -> None:
    with pytest.raises(TraceError, match=f"line 4: .*{why}.*--skip-broken"):
        list(read_trace(write(tmp_path, BURST + row + "\n")))


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (QWEN.replace('"hash_ids": [5]', '"hash_ids": [5, 6]'), 2, "1 blocks of 16"),
        (QWEN.replace('"chat_id": 9', '"chat_id": "9"'), 2, "chat_id"),
        (QWEN.replace('"chat_id": 11', '"chat_id": 1.5'), 3, "chat_id"),
        (OWN.replace("[1, -2]", "[1]"), 2, "block_hashes has 1 ids"),
        (OWN.replace("0.75", "-1.0"), 3, "arrival_s"),
        (OWN.replace('"s"', '"' + "s" * 300 + '"'), 3, "session"),
    ],
)
def test_broken_json_rows_of_other_formats_are_named(
    tmp_path: Path, content: str, line: int, why: str
) -> None:
    with pytest.raises(TraceError, match=f"line {line}: .*{why}"):
        list(read_trace(write(tmp_path, content)))


def test_broken_rows_are_left_out_only_on_demand_and_counted(tmp_path: Path) -> None:
    good = "2023-11-16 18:17:05.0,7,1\n"
    content = (
        AZURE.encode()
        + b"2023-11-16 18:17:01.0,1,1\n"  # earlier than the row above
        + b"2023-11-16 18:17:04.5,0,1\n"
        + b"x" * (3 << 20)  # its rest is no line of its own
        + b"\n\xff\xfe\n\n"
        + good.encode()
        + b"\n"
    )
    path = write(tmp_path, content)
    with pytest.raises(TraceError, match="line 4"):
        list(read_trace(path))
    skipped = SkippedRows()
    rows = list(read_trace(path, skipped=skipped))
    assert [row.line for row in rows] == [2, 3, 9]
    assert skipped.count == 5
    assert skipped.label.startswith("5 broken rows of the trace left out (line 4 arrives 3.03196 s")
    assert "line 6 is longer" in skipped.label
    # What is no trace at all is an error all the same.
    with pytest.raises(TraceError, match="line 1"):
        list(read_trace(write(tmp_path, "a,b\n1,2\n"), skipped=SkippedRows()))


@pytest.mark.slow
def test_rows_stream_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        file.writelines(f"2023-11-16 18:17:03.{i:07d},{i % 900 + 1},9\n" for i in range(30_000))
    tracemalloc.start()
    try:
        num_rows = sum(1 for _ in read_trace(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_rows == 30_000
    assert peak < 300_000, "the file itself has 1 MB"


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


def test_a_limit_beyond_the_machine_s_numbers_takes_every_row(tmp_path: Path) -> None:
    path = write(tmp_path, AZURE)
    assert list(read_trace(path, 10**30)) == list(read_trace(path))
