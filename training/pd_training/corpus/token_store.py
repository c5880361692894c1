"""A tokenised corpus: two memory-mapped files of ids, and their description.

train.bin, held_out.bin    little-endian uint16, or uint32 for large vocabularies; documents
                           in the corpus's order, the end-of-sequence id after each
tokenizer.json             what made the ids
data.json                  counts, the ids' type, the tokenizer's digest
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pd_core.checkpoints.checkpoint import read_json
from pd_core.errors import ConfigError
from pd_core.files.atomic import new_folder
from pd_training.corpus.bpe import CorpusEncoder
from pd_training.corpus.documents import Document

__all__ = ["SPLITS", "Split", "TokenStore", "held_out", "write_token_store"]

SPLITS = ("train", "held_out")
TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def held_out(text: str, fraction: float) -> bool:
    """Return whether a document is held out, by a hash of its text.

    So all copies of a text are on the same side whatever their names, and a document stays on its
    side when the corpus grows.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True, slots=True)
class Split:
    """One side of a corpus.

    Attributes:
        tokens: ids, (num_tokens,), memory-mapped.
        text_bytes: bytes of the documents in UTF-8, without end-of-sequence tokens.
    """

    tokens: TokenArray
    documents: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class TokenStore:
    """A tokenised corpus, opened.

    Attributes:
        digest: digest of settings, counts and content in data.json, compared by a resumed run.
    """

    train: Split
    held_out: Split
    tokenizer: str
    eos_token_id: int
    vocab_size: int
    digest: str

    @classmethod
    def open(cls, directory: Path) -> "TokenStore":
        """Map the files of a folder that `write_token_store` made.

        Raises:
            ConfigError: it is not such a folder, or a file is truncated or was replaced.
        """
        if not (directory / "data.json").is_file():
            raise ConfigError(
                f"{directory} is not a prepared corpus: {directory / 'data.json'} does not exist; "
                "make one with pd-train prepare"
            )
        facts = read_json(directory / "data.json")
        try:
            tokenizer = (directory / "tokenizer.json").read_text(encoding="utf-8")
            if hashlib.sha256(tokenizer.encode()).hexdigest() != facts["tokenizer_sha256"]:
                raise ConfigError(
                    f"{directory / 'tokenizer.json'} is not the tokenizer that made the ids; "
                    "prepare the corpus again"
                )
            train, held = (_open_split(directory, name, facts) for name in SPLITS)
            return cls(
                train=train,
                held_out=held,
                tokenizer=tokenizer,
                eos_token_id=int(facts["eos_token_id"]),
                vocab_size=int(facts["vocab_size"]),
                digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ConfigError(
                f"{directory} is not a prepared corpus ({error!r}); make one with pd-train prepare"
            ) from error


def write_token_store(
    directory: Path,
    documents: Iterable[Document],
    tokenizer: str,
    *,
    eos_token: str,
    held_out_fraction: float,
    selection: Mapping[str, Any] | None = None,
) -> TokenStore:
    """Tokenise documents into a new folder, which appears once it is complete.

    Args:
        selection: how the documents were chosen, for the record.

    Raises:
        ConfigError: nothing is left to train on, the tokenizer does not fit, or the disk is full.
    """
    encoder = CorpusEncoder(tokenizer, eos_token)
    dtype = np.dtype("<u2" if encoder.vocab_size <= 2**16 else "<u4")
    counts = {name: {"tokens": 0, "documents": 0, "text_bytes": 0} for name in SPLITS}
    with new_folder(directory) as folder:
        digests = {name: hashlib.sha256() for name in SPLITS}
        files: dict[str, BinaryIO] = {n: (folder / f"{n}.bin").open("wb") for n in SPLITS}
        try:
            for document in documents:
                side = SPLITS[held_out(document.text, held_out_fraction)]
                ids = np.array(encoder.encode(document.text), dtype=dtype).tobytes()
                files[side].write(ids)
                digests[side].update(ids)
                counts[side]["tokens"] += len(ids) // dtype.itemsize
                counts[side]["documents"] += 1
                counts[side]["text_bytes"] += len(document.text.encode("utf-8", "surrogatepass"))
        finally:
            for file in files.values():
                file.close()
        if not counts["train"]["tokens"]:
            raise ConfigError(
                "the corpus is empty: no document with text is left to train on; give more, or "
                "hold out a smaller fraction"
            )
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        facts = {
            "dtype": dtype.str,
            "vocab_size": encoder.vocab_size,
            "eos_token_id": encoder.eos_token_id,
            "held_out_fraction": held_out_fraction,
            "selection": None if selection is None else dict(selection),
            "tokenizer_sha256": hashlib.sha256(tokenizer.encode()).hexdigest(),
        } | {n: {**counts[n], "sha256": digests[n].hexdigest()} for n in SPLITS}
        (folder / "data.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return TokenStore.open(directory)


def _open_split(directory: Path, name: str, facts: dict[str, Any]) -> Split:
    file, counts = directory / f"{name}.bin", facts[name]
    dtype = np.dtype(facts["dtype"])
    if dtype.str not in ("<u2", "<u4"):
        raise ConfigError(f"{directory / 'data.json'}: dtype is {facts['dtype']!r}")
    want = counts["tokens"] * dtype.itemsize
    if file.stat().st_size != want:
        raise ConfigError(
            f"{file} has {file.stat().st_size} bytes instead of {want}; prepare the corpus again"
        )
    with file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != counts["sha256"]:
            raise ConfigError(f"{file} was changed after it was made; prepare the corpus again")
    # An empty file cannot be mapped.
    tokens = np.memmap(file, dtype, mode="r") if want else np.empty(0, dtype)
    return Split(tokens, counts["documents"], counts["text_bytes"])
