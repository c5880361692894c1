"""Files that are damaged or made to harm: a typed error at once, and little memory."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pd_core.errors import ModelError
from pd_core.gguf.gguf_file import GgufFile
from pd_core.gguf.header import Header, read_header
from pd_core.gguf.keys import Keys
from pd_core.gguf.model_shape import model_shape
from pd_core.gguf.tokenizer_json import tokenizer_json
from pd_core.gguf.vocabulary import read_vocabulary
from tests.gguf_files import gguf_config, gguf_model, write_gguf

_TEXT, _LIST, _U32 = 8, 9, 4


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


def file(*parts: bytes, keys: int = 0, tensors: int = 0, version: int = 3, end: int = 64) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys)
    return head + b"".join(parts) + bytes(end)


def read(content: bytes) -> Header:
    return read_header(memoryview(content))


_ENDLESS = (1 << 63) + 5
_FOUR = struct.pack("<I", 4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin with GGUF"),
        (b"GG", "does not begin with GGUF"),
        (b"ggml" + bytes(64), "does not begin with GGUF"),
        (b"GGUF", "ends at byte 4"),
        (file(version=1), "version 0x1; supported are 2 and 3"),
        (file(version=3 << 24), "version 0x3000000.*little-endian"),
        (file(keys=_ENDLESS), "counts .* keys, and no model"),
        (file(tensors=_ENDLESS), "counts .* tensors, and no model"),
        (file(keys=60_000, end=0), "the file ends at byte"),
        (file(tensors=60_000), "0 dimensions"),
        (file(struct.pack("<Q", _ENDLESS), keys=1), "the file ends at byte"),
        (file(key(b"k", _TEXT, struct.pack("<Q", 1 << 40)), keys=1), "'k': the file ends at byte"),
        (file(key(b"k", _TEXT, text(b"\xff\xfe")), keys=1), "not UTF-8"),
        (file(key(b"k", 13, b""), keys=1), "kind 13, which the format does not have"),
        (
            file(key(b"k", _LIST, struct.pack("<IQ", _LIST, 1)), keys=1),
            "items are of kind 9, which is not supported",
        ),
        (
            file(key(b"k", _LIST, struct.pack("<IQ", _U32, _ENDLESS)), keys=1),
            "no model's has more than 1048576",
        ),
        (
            file(key(b"k", _LIST, struct.pack("<IQ", _U32, 1 << 20)), keys=1),
            "the file ends at byte",
        ),
        (
            file(key(b"k", _LIST, struct.pack("<IQ", _TEXT, 1 << 20)), keys=1),
            "the file ends at byte",
        ),
        (file(key(b"k", _U32, _FOUR), key(b"k", _U32, _FOUR), keys=2), "'k' is there twice"),
        (file(tensor(b"w", ()), tensors=1), "0 dimensions"),
        (file(tensor(b"w", (1,) * 5), tensors=1), "5 dimensions"),
        (file(tensor(b"w", (0, 4)), tensors=1), r"impossible shape \[4, 0\]"),
        (file(tensor(b"w", (1 << 62, 1 << 62)), tensors=1), "impossible shape"),
        (file(tensor(b"w", (4,), 999), tensors=1), "stored as type 999"),
        (file(tensor(b"w", (33,), 8), tensors=1), "33 numbers, which do not divide .* 32 of Q8_0"),
        (file(tensor(b"w", (4,), offset=1 << 63), tensors=1), "begins at .* ends at 0"),
        (file(tensor(b"w", (4,), offset=32), tensors=1), "begins at 32"),
        (file(tensor(b"w", (4096,)), tensors=1), "ends at byte .* truncated"),
        (
            file(tensor(b"w", (4,)), tensor(b"v", (4,)), tensors=2),
            "'v' begins at 0 .* ends at 32",
        ),
        (
            file(tensor(b"w", (4,)), tensor(b"w", (4,), offset=32), tensors=2),
            "'w' is there twice",
        ),
        (
            file(key(b"general.alignment", _U32, struct.pack("<I", 3)), keys=1),
            "alignment is 3; it must be a power of two",
        ),
        (
            file(key(b"general.alignment", _U32, struct.pack("<I", 0)), keys=1),
            "alignment is 0; it must be a power of two",
        ),
    ],
)
def test_a_hostile_header_is_refused(content: bytes, said: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=said) as caught:
            read(content)
        # Far from what the headers say; other threads of this process may take some meanwhile.
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 400


def test_a_header_without_end_is_given_up_at_a_bound() -> None:
    many = key(b"k", _TEXT, text(bytes(65 << 20)))
    with pytest.raises(ModelError, match="larger than 64 MiB"):
        read(file(many, keys=1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as a GGUF file"),
        (lambda path: path.mkdir(), "cannot be read as a GGUF file"),
        (lambda path: None, "cannot be read as a GGUF file"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/x"), "git lfs pull"),
    ],
    ids=["empty", "folder", "missing", "pointer"],
)
def test_what_is_no_file_is_refused(
    make: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    make(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=said):
        GgufFile(tmp_path / "m.gguf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    config = gguf_config()
    write_gguf(path, config, gguf_model(config).tensors())
    return path.read_bytes()


def test_a_file_that_ends_anywhere_earlier_is_refused(whole: bytes) -> None:
    header = read(whole)
    end = max(place.begin + place.size_bytes for place in header.tensors.values())
    for size in [*range(0, end, 997), end - 1]:
        with pytest.raises(ModelError):
            read(whole[:size])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes_give_a_model_or_our_error(whole: bytes, data: st.DataObject) -> None:
    changed = bytearray(whole)
    header_bytes = min(place.begin for place in read(whole).tensors.values())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header_bytes - 1))
        changed[at] = data.draw(st.integers(0, 255))
    try:
        header = read(bytes(changed))
        keys = Keys(header.keys)
        model_shape(keys, header.tensors)
        tokenizer_json(read_vocabulary(keys), keys)
    except ModelError:
        return
    assert all(p.begin + p.size_bytes <= len(changed) for p in header.tensors.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llama.attention.head_count_kv": 3}, "4 query heads cannot share 3 KV heads"),
        ({"llama.attention.head_count_kv": 0}, "llama.attention.head_count_kv is 0; it must be 1"),
        ({"llama.embedding_length": 1 << 40}, "the key llama.embedding_length is 1099511627776"),
        ({"llama.feed_forward_length": 0}, "the key llama.feed_forward_length is 0; it must be 1"),
        ({"llama.context_length": 0}, "the key llama.context_length is 0; it must be 1 or more"),
        (
            {"llama.attention.key_length": 15, "llama.rope.dimension_count": 15},
            "the key llama.attention.key_length is 15; RoPE needs an even one",
        ),
        (
            {"llama.attention.layer_norm_rms_epsilon": float("nan")},
            "the key llama.attention.layer_norm_rms_epsilon is nan; it must be from",
        ),
        ({"llama.rope.freq_base": float("inf")}, "the key llama.rope.freq_base is inf"),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": -2.0},
            "the key llama.rope.scaling.factor is -2.0; it must be 1 or more",
        ),
    ],
)
def test_a_wrong_number_is_named_by_its_key(
    whole: bytes, changes: dict[str, str | int | float], said: str
) -> None:
    header = read(whole)
    values = dict(header.keys) | changes
    if "llama.attention.key_length" in changes:
        values["llama.attention.value_length"] = values["llama.attention.key_length"]
    with pytest.raises(ModelError, match=said) as caught:
        model_shape(Keys(values), header.tensors)
    assert "config" not in str(caught.value)
