"""Traces as they are found: extra keys, other times and counts, and what spreadsheets write."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from pd_bench.traces.dialect import whole_records
from pd_bench.traces.lines import MAX_LINE_BYTES, Line
from pd_bench.traces.reader import SkippedRows, TraceRow, format_name, read_trace
from pd_core.errors import TraceError

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n"
    "2023-11-16 18:17:04.0319601,3180,8\n"
)
AZURE_ROWS = [TraceRow(2, 0.0, 4808, 10), TraceRow(3, 0.0520001, 3180, 8)]
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Session ID\n"
    "5,ChatGPT,472,18,a\n"
    "45.25,GPT-4,1087,230,\n"
)
BURST_ROWS = [TraceRow(2, 0.0, 472, 18, session="a"), TraceRow(3, 40.25, 1087, 230)]
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1025, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 40, "input_length": 7, "output_length": 2, "hash_ids": [0]}\n'
)


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "trace"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def utf16(text: str) -> bytes:
    return b"\xff\xfe" + text.encode("utf-16-le")


def utf16_big(text: str) -> bytes:
    return b"\xfe\xff" + text.encode("utf-16-be")


@pytest.mark.parametrize(
    "time",
    [
        "2023-11-16T18:17:04.0319601",
        "2023-11-16T18:17:04.0319601Z",
        "2023-11-16t18:17:04.0319601z",
        "2023-11-16 18:17:04.0319601+00:00",
        "2023-11-16 18:17:04.031960100 UTC",
        "2023-11-16T20:17:04.0319601+02:00",
        "2023-11-16T13:47:04.0319601-0430",
        "2023-11-16 19:17:04.0319601+01",
        "2023-11-16 18:17:04,0319601",
        '"2023-11-16 18:17:04.0319601"',
    ],
)
def test_an_instant_is_the_same_however_it_is_written(tmp_path: Path, time: str) -> None:
    path = write(tmp_path, AZURE.replace("2023-11-16 18:17:04.0319601", f'"{time.strip(chr(34))}"'))
    assert list(read_trace(path)) == AZURE_ROWS


@pytest.mark.parametrize("count", ["3180.0", "3180.", '"3180"', '" 3180 "', "0003180", "3180.00"])
def test_a_count_is_the_same_however_it_is_written(tmp_path: Path, count: str) -> None:
    assert list(read_trace(write(tmp_path, AZURE.replace("3180", count)))) == AZURE_ROWS


def test_json_counts_may_be_of_floating_point(tmp_path: Path) -> None:
    content = MOONCAKE.replace("1025", "1025.0").replace(
        '"output_length": 2', '"output_length": 2e0'
    )
    assert list(read_trace(write(tmp_path, content))) == list(read_trace(write(tmp_path, MOONCAKE)))


def test_hashes_may_be_absent_and_other_keys_are_left_alone(tmp_path: Path) -> None:
    content = (
        '{"id": "r1", "timestamp": 0, "input_length": 9, "output_length": 5, "meta": {"a": [1]}}\n'
        '{"timestamp": 40, "input_length": 7, "output_length": 2, "hash_ids": null, "format": 1}\n'
        '{"timestamp": 50, "input_length": 8, "output_length": 2, "hash_ids": []}\n'
    )
    path = write(tmp_path, content)
    assert format_name(path) == "mooncake"
    assert list(read_trace(path)) == [
        TraceRow(1, 0.0, 9, 5),
        TraceRow(2, 0.04, 7, 2),
        TraceRow(3, 0.05, 8, 2),
    ]


def test_quoted_cells_may_follow_a_space(tmp_path: Path) -> None:
    content = (
        '"TIMESTAMP", "Region, zone", "ContextTokens", "GeneratedTokens"\n'
        '"2023-11-16 18:17:03.9799600", "west, 2", "4808", "10"\n'
        '"2023-11-16 18:17:04.0319601", "a ""name""\nin two lines", 3180, 8\n'
    )
    assert list(read_trace(write(tmp_path, content))) == AZURE_ROWS


def test_azure_s_columns_may_stand_anywhere_among_others(tmp_path: Path) -> None:
    content = (
        '"GeneratedTokens","TIMESTAMP","Region, zone","ContextTokens"\n'
        '"10","2023-11-16 18:17:03.9799600","west, 2","4808"\n'
        '8,2023-11-16 18:17:04.0319601,"he said ""no""",3180\n'
    )
    assert list(read_trace(write(tmp_path, content))) == AZURE_ROWS


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.replace(",", ";").encode(),
        lambda text: ("sep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n")).encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: utf16(text.replace(",", "\t").replace("\n", "\r\n")),
        lambda text: utf16_big(text),
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(utf16(text), mtime=0),
        lambda text: ("\r\n" + text.replace("\n", "\r\n") + ",,\r\n,,\r\n").encode(),
    ],
    ids=["semicolons", "sep", "tabs", "unicode text", "big-endian", "mark", "packed", "blank rows"],
)
@pytest.mark.parametrize(("content", "rows"), [(AZURE, AZURE_ROWS), (BURST, BURST_ROWS)])
def test_what_a_spreadsheet_saves_is_the_same_trace(
    tmp_path: Path, saved: Callable[[str], bytes], content: str, rows: list[TraceRow]
) -> None:
    read = list(read_trace(write(tmp_path, saved(content))))
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in read] == [
        (r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in rows
    ]


def test_decimal_commas_are_read_where_a_comma_separates_nothing(tmp_path: Path) -> None:
    content = BURST.replace(",", ";").replace("45.25", "45,25").replace("1087", "1087,0")
    assert list(read_trace(write(tmp_path, content))) == BURST_ROWS
    with pytest.raises(TraceError, match="line 3: Request tokens is '1,087'; it must be a whole"):
        list(read_trace(write(tmp_path, BURST.replace("1087", '"1,087"'))))


def test_a_quoted_cell_may_have_line_ends_and_rows_keep_their_lines(tmp_path: Path) -> None:
    content = BURST.replace("ChatGPT", '"Chat\nGPT, ""4"""')
    assert [(r.line, r.prompt_tokens) for r in read_trace(write(tmp_path, content))] == [
        (2, 472),
        (4, 1087),
    ]


def test_a_quote_within_a_cell_opens_nothing(tmp_path: Path) -> None:
    content = BURST.replace("ChatGPT", '5" disk').replace("GPT-4", '3" disk')
    assert list(read_trace(write(tmp_path, content))) == BURST_ROWS


def test_a_quote_that_never_closes_breaks_one_row(tmp_path: Path) -> None:
    path = write(tmp_path, BURST.replace("ChatGPT", '"ChatGPT'))
    with pytest.raises(TraceError, match="line 2: has a quote that is not closed"):
        list(read_trace(path))
    skipped = SkippedRows()
    assert [r.line for r in read_trace(path, skipped=skipped)] == [3]
    assert skipped.count == 1


def test_an_open_quote_holds_no_more_than_a_line_may() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        yield Line(1, 'a,"b')
        while True:
            taken += 1
            yield Line(1 + taken, "x" * 1000)

    records = whole_records(endless(), ",")  # type: ignore[arg-type]
    assert next(records).problem == "has a quote that is not closed"
    assert next(records) == Line(2, "x" * 1000)
    assert taken * 1000 < 2 * MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (AZURE.replace("\n", "\r"), "line 1: has carriage returns in it; save the file with"),
        (AZURE.replace("\n", "\r") * 20_000, "line 1: is longer .* carriage returns"),
        (AZURE.encode("utf-16-le"), "line 1: has zero bytes, as UTF-16 without .* save the file"),
        ('[{"timestamp": 1}]', "line 1: begins with a JSON array; write one object a line"),
        ('{"time": 1, "in": 2}\n', r"line 1: .* --columns arrival=.* here are 'in', 'time'"),
        ("when;in;out\n1;2;3\n", "line 1: .* --columns .* here are 'when', 'in', 'out'"),
        (b"PAR1\x15\x04", "in Parquet's format; write it as CSV"),
        (b"PK\x03\x04", "a spreadsheet is such a file, save it as CSV"),
        (AZURE + "16.11.2023 18:17,1,1\n", "line 4: .*such as '2023-11-16 18:17:03.98'"),
        (AZURE + "2023-11-16T18:17:05+99:00,1,1\n", "line 4: .*not a date and time that exists"),
        (AZURE + "2023-11-16T19:17:05+02:00,1,1\n", r"line 4: arrives .* \(pd-bench trace convert"),
        (AZURE + "2023-11-16T18:17:05Z,-20.0,1\n", "line 4: ContextTokens is '-20.0'"),
        (AZURE + "2023-11-16T18:17:05Z,inf,1\n", "line 4: ContextTokens is 'inf'"),
        (AZURE + "2023-11-16T18:17:05Z,20.5,1\n", "line 4: ContextTokens is '20.5'"),
        (BURST + "1700000000000,a,1,1,\n", "line 4: Timestamp is '1700000000000', thousands of"),
        (MOONCAKE.replace("1025", "1e300"), r"line 1: input_length is 1000.*\.\.\.; it must lie"),
        (MOONCAKE.replace("1025", "Infinity"), "line 1: input_length"),
        (MOONCAKE.replace("1025", "9" * 5000), "line 1: .*number out of range"),
        (MOONCAKE + '{"x": ' + "[" * 9000 + "]" * 9000 + "}\n", "line 3: .*recursion limit"),
        (utf16(AZURE)[:-1], "line 3: is not UTF-8 text"),
        (utf16(AZURE) + b"\x00\xd8\n\x00", "line 4: is not UTF-8 text"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line_and_its_mend(
    tmp_path: Path, content: str | bytes, why: str
) -> None:
    with pytest.raises(TraceError, match=why):
        list(read_trace(write(tmp_path, content)))
