"""Documents, tokenizer training, the token files and the order of sequences."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pd_core.errors import ConfigError
from pd_core.text.tokenizer import Tokenizer
from pd_training.corpus.bpe import EOS_TOKEN, CorpusEncoder, train_tokenizer
from pd_training.corpus.documents import Document, corpus_files, read_documents
from pd_training.corpus.sequences import PackedSequences
from pd_training.corpus.token_store import TokenStore, held_out, write_token_store

TEXTS = [f"Number {i} is followed by {i + 1}, and naïve {i} by ☃.\n" * 3 for i in range(40)]


def documents() -> list[Document]:
    return [Document(f"text {i}", text) for i, text in enumerate(TEXTS)]


def read(*paths: Path) -> list[str]:
    return [document.text for document in read_documents(corpus_files(paths))]


def test_a_folder_is_read_sorted_and_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.py").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.rst").write_text("three")
    (tmp_path / "picture.png").write_bytes(b"\xff")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "link.txt").symlink_to(tmp_path / "c.rst")
    (tmp_path / "b" / "circle").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert read(tmp_path) == ["one", "two", "three"]
    assert read(tmp_path, tmp_path / "a.txt") == ["one", "two", "three"]
    assert [f.name for f in corpus_files([tmp_path], ["*/b/*", "*.txt"])] == ["c.rst"]


def test_jsonl_and_parquet_rows_are_documents(tmp_path: Path) -> None:
    lines = [json.dumps({"text": t, "id": 1}, ensure_ascii=False) for t in ("één", "two")]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    parquet.write_table(pa.table({"n": [1, 2], "text": ["three", "four"]}), tmp_path / "b.parquet")
    assert read(tmp_path) == ["één", "two", "three", "four"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nfine\nbad \xff here", r"a\.txt, line 3: not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n{"txt": "y"}', r'line 3: no "text" field'),
        ("a.jsonl", b'{"text": "x"}\nnull', r'line 2: no "text" field'),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}', r"line 2: not UTF-8"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"text": "\\ud83d\\ude00"}\n{"text": "a\\ud83d"}',
            r"line 3: .* half a surrogate pair",
        ),
        ("a.parquet", b"PAR1 nonsense", r"a\.parquet, from row 0 on: not readable"),
    ],
)
def test_broken_rows_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path)


def test_a_parquet_row_without_text_is_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["x", None]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 1"):
        read(tmp_path)
    parquet.write_table(pa.table({"words": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match='no column "text"'):
        read(tmp_path)
    offsets, content = (pa.py_buffer(b) for b in (b"\0\0\0\0\1\0\0\0\2\0\0\0", b"x\xff"))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, content])
    parquet.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet, row 1: not UTF-8"):
        read(tmp_path)


def test_an_empty_or_missing_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        corpus_files([tmp_path])
    with pytest.raises(ConfigError, match="does not exist"):
        corpus_files([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no document with text"):
        write_token_store(
            tmp_path / "data",
            [],
            train_tokenizer(TEXTS, 300),
            eos_token=EOS_TOKEN,
            held_out_fraction=0.1,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_brings_every_text_back() -> None:
    content = train_tokenizer(TEXTS, 320)
    assert content == train_tokenizer(TEXTS, 320)
    tokenizer = Tokenizer.from_str(content)
    assert tokenizer.vocab_size == 320
    for text in [*TEXTS, "  two\tspaces \x00 日本 \n\n"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(ConfigError, match="is empty"):
        train_tokenizer([], 300)
    with pytest.raises(ConfigError, match="257 or more"):
        train_tokenizer(TEXTS, 256)


def test_an_error_in_the_corpus_stops_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 1000 + "broken\n")
    with pytest.raises(ConfigError, match="line 1001: not JSON"):
        train_tokenizer((d.text for d in read_documents([tmp_path / "a.jsonl"])), 300)


def test_an_eos_in_the_text_is_only_letters() -> None:
    encoder = CorpusEncoder(train_tokenizer(TEXTS, 300))
    ids = encoder.encode(f"a {EOS_TOKEN} b")
    assert ids.count(encoder.eos_token_id) == 1
    assert ids[-1] == encoder.eos_token_id
    with pytest.raises(ConfigError, match="--eos-token"):
        CorpusEncoder(train_tokenizer(TEXTS, 300), "</s>")


def make_store(directory: Path, fraction: float = 0.25) -> TokenStore:
    return write_token_store(
        directory,
        documents(),
        train_tokenizer(TEXTS, 300),
        eos_token=EOS_TOKEN,
        held_out_fraction=fraction,
    )


def test_the_files_hold_every_document_on_its_side(tmp_path: Path) -> None:
    store = make_store(tmp_path / "data")
    tokenizer = Tokenizer.from_str(store.tokenizer)
    sides = ([t for t in TEXTS if not held_out(t, 0.25)], [t for t in TEXTS if held_out(t, 0.25)])
    for texts, split in zip(sides, (store.train, store.held_out), strict=True):
        ids = np.asarray(split.tokens).tolist()
        ends = [i for i, token in enumerate(ids) if token == store.eos_token_id]
        starts = [0, *(end + 1 for end in ends)]
        found = [tokenizer.decode(ids[a:b]) for a, b in zip(starts, ends, strict=False)]
        assert found == texts
        assert split.text_bytes == sum(len(t.encode()) for t in texts)
        assert split.documents == len(texts) > 0
    assert store.train.tokens.dtype == np.dtype("<u2")


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "data")
    with (tmp_path / "data" / "train.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ConfigError, match=r"train\.bin has \d+ bytes instead of"):
        TokenStore.open(tmp_path / "data")
    make_store(tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text(train_tokenizer(TEXTS, 310))
    with pytest.raises(ConfigError, match="not the tokenizer that made the ids"):
        TokenStore.open(tmp_path / "other")
    with pytest.raises(ConfigError, match="does not exist; make one with pd-train prepare"):
        TokenStore.open(tmp_path)
    make_store(tmp_path / "third")
    ids = bytearray((tmp_path / "third" / "train.bin").read_bytes())
    ids[-3] ^= 0xFF  # as many bytes as before, and an id that no embedding has
    (tmp_path / "third" / "train.bin").write_bytes(ids)
    with pytest.raises(ConfigError, match=r"train\.bin was changed"):
        TokenStore.open(tmp_path / "third")


def test_held_out_is_about_the_fraction_and_grows_with_it() -> None:
    texts = [f"text {i}" for i in range(2000)]
    small = {t for t in texts if held_out(t, 0.1)}
    large = {t for t in texts if held_out(t, 0.2)}
    assert small < large
    assert 150 < len(small) < 250
    assert not any(held_out(t, 0.0) for t in texts)


def test_every_epoch_visits_every_window_in_an_order_of_its_own() -> None:
    sequences = PackedSequences(np.arange(105, dtype=np.uint16), 4, seed=3)
    assert sequences.num_windows == 26
    epochs = [[int(sequences.window(e * 26 + i)[0]) for i in range(26)] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(0, 104, 4))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert sequences.window(0).tolist() == list(range(epochs[0][0], epochs[0][0] + 5))


def test_the_order_can_be_taken_up_anywhere() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    whole = PackedSequences(tokens, 7, seed=9)
    batches = [whole.batch(i * 3, 3) for i in range(120)]
    late = PackedSequences(tokens, 7, seed=9).batch(117 * 3, 3)
    assert late[0].equal(batches[117][0])
    assert late[1].equal(batches[117][1])
    assert late[0][:, 1:].equal(late[1][:, :-1])
    assert not PackedSequences(tokens, 7, seed=8).batch(0, 3)[0].equal(batches[0][0])
    with pytest.raises(ConfigError, match="too few"):
        PackedSequences(tokens[:7], 7, seed=9)


def test_a_full_disk_leaves_no_half_store(tmp_path: Path) -> None:
    def failing() -> "list[Document]":
        raise OSError(28, os.strerror(28))

    with pytest.raises(ConfigError, match="No space left"):
        write_token_store(
            tmp_path / "data",
            (d for _ in range(1) for d in failing()),
            train_tokenizer(TEXTS, 300),
            eos_token=EOS_TOKEN,
            held_out_fraction=0.1,
        )
    assert list(tmp_path.iterdir()) == []
