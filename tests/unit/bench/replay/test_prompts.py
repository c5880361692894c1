import pytest

from pd_bench.replay.prompts import PromptMaker, TextPieces
from pd_bench.traces.reader import TraceRow
from pd_core.errors import ConfigError


def test_a_prompt_depends_on_seed_and_row_only() -> None:
    row = TraceRow(7, 0.0, 1000, 1)
    prompt = PromptMaker(1024, [0, 1], seed=3).prompt(row, 1000)
    assert len(prompt) == 1000
    assert PromptMaker(1024, [0, 1], seed=3).prompt(row, 1000) == prompt
    assert PromptMaker(1024, [0, 1], seed=3).prompt(row, 100) == prompt[:100]
    assert PromptMaker(1024, [0, 1], seed=4).prompt(row, 1000) != prompt
    assert PromptMaker(1024, [0, 1], seed=3).prompt(TraceRow(8, 0.0, 1000, 1), 1000) != prompt


def test_prompts_stay_the_same_from_version_to_version() -> None:
    # Written down once: results of different versions of this project stay comparable.
    assert PromptMaker(1024, [0, 1], seed=0).prompt(TraceRow(2, 0.0, 6, 1), 6) == (
        879,
        490,
        352,
        338,
        451,
        116,
    )


def test_equal_block_hashes_give_equal_blocks() -> None:
    maker = PromptMaker(1024, [0], seed=0)
    a = maker.prompt(TraceRow(1, 0.0, 1100, 1, (5, 6, 7)), 1100)
    b = maker.prompt(TraceRow(2, 1.0, 1536, 1, (5, 9, 7)), 1536)
    assert a[:512] == b[:512]
    assert a[512:1024] != b[512:1024]
    assert a[1024:] == b[1024:1100]  # a partial last block is the beginning of the whole one
    assert maker.prompt(TraceRow(1, 0.0, 1100, 1, (5, 6, 7)), 600) == a[:600]
    # A row and a block of the same number have nothing in common.
    assert maker.prompt(TraceRow(5, 0.0, 512, 1), 512) != a[:512]


def test_ids_lie_in_the_vocabulary_and_never_end_the_sequence() -> None:
    prompt = PromptMaker(8, [2, 5], seed=-1).prompt(TraceRow(1, 0.0, 5000, 1), 5000)
    assert set(prompt) == {0, 1, 3, 4, 6, 7}


def test_a_vocabulary_of_ends_only_is_refused() -> None:
    with pytest.raises(ConfigError, match="none that does not end"):
        PromptMaker(2, [0, 1], seed=0)


def test_pieces_of_a_text_depend_on_seed_and_row_and_lie_anywhere_in_it() -> None:
    text = range(100, 1100)
    piece = TextPieces(text, seed=3).prompt(TraceRow(7, 0.0, 400, 1), 400)
    assert piece == tuple(range(piece[0], piece[0] + 400))
    assert TextPieces(text, seed=3).prompt(TraceRow(7, 0.0, 400, 1), 400) == piece
    assert TextPieces(text, seed=4).prompt(TraceRow(7, 0.0, 400, 1), 400) != piece
    rows = [TextPieces(text, 0).prompt(TraceRow(line, 0.0, 400, 1), 400) for line in range(50)]
    starts = {row[0] for row in rows}
    assert len(starts) > 40
    assert min(starts) < 200 < 600 < max(starts) <= 700
    assert TextPieces(text, 0).prompt(TraceRow(1, 0.0, 1000, 1), 1000) == tuple(text)


def test_a_text_that_is_too_short_names_the_row() -> None:
    with pytest.raises(ConfigError, match="line 7 asks for a prompt of 11 tokens, and the text"):
        TextPieces(range(10), 0).prompt(TraceRow(7, 0.0, 11, 1), 11)
