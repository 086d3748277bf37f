"""Text: documents, the tokenizer, and packed token arrays with a held-out slice of every source.

A source is a ``NAME.txt.xz`` file with a paragraph a line and a blank line between documents.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 4096
END, PAD, MASK = "<|endoftext|>", "[PAD]", "[MASK]"
SPECIALS = [END, PAD, MASK]
TOKENIZER_CHARACTERS = 24_000_000  # an equal share of every source
HELD_OUT_EVERY = 100  # every 100th document of each source is held out …
HELD_OUT_TOKENS = 60_000  # … and this much of it is used
LONG_PARAGRAPH = 100  # letters and digits: two texts that share one of this length share a passage, not a phrase
SHARED_PARAGRAPHS = 5  # a training document that shares more than this with a held-out one is another edition of it


@dataclass(frozen=True)
class Corpus:
    """Packed tokens: the training stream, and each source's held-out stream."""

    tokenizer: Tokenizer
    train: NDArray[np.uint16]
    heldout: dict[str, NDArray[np.uint16]]

    @property
    def end(self) -> int:
        """The id that ends a document."""
        return SPECIALS.index(END)

    @property
    def mask(self) -> int:
        """The id that hides a token."""
        return SPECIALS.index(MASK)

    def bytes_of_tokens(self) -> NDArray[np.int64]:
        """UTF-8 bytes behind each id, (vocabulary,); none behind a special token."""
        sizes = np.zeros(self.tokenizer.get_vocab_size(), dtype=np.int64)
        for token, index in self.tokenizer.get_vocab().items():
            sizes[index] = 0 if token in SPECIALS else len(token)  # byte-level: a character stands for a byte
        return sizes


def documents(path: Path) -> Iterator[str]:
    """Documents of one source."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        paragraphs: list[str] = []
        for line in lines:
            if line.strip():
                paragraphs.append(line.strip())
            elif paragraphs:
                yield "\n".join(paragraphs)
                paragraphs = []
        if paragraphs:
            yield "\n".join(paragraphs)


def prepare(text: Path, work: Path) -> Corpus:
    """The corpus of a folder of sources, made once and kept in ``work``."""
    files = sorted(text.glob("*.txt.xz"))
    if not files:
        raise typer.BadParameter(f"{text} holds no .txt.xz files")
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer.json").exists():
        typer.echo("training the tokenizer")
        _train_tokenizer(files).save(str(work / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    if not (work / "sources.json").exists():
        _encode(tokenizer, files, work)
    heldout = {path.name.removesuffix(".txt.xz"): np.load(work / f"heldout_{path.name}.npy") for path in files}
    return Corpus(tokenizer, np.load(work / "train.npy", mmap_mode="r"), heldout)


def _train_tokenizer(files: list[Path]) -> Tokenizer:
    """Byte-level BPE, trained on an equal share of every source without its held-out documents."""

    def sample() -> Iterator[str]:
        for path in files:
            left = TOKENIZER_CHARACTERS // len(files)
            for number, document in enumerate(documents(path)):
                if number % HELD_OUT_EVERY == 0:
                    continue
                text = document[:100_000]
                yield text
                left -= len(text)
                if left <= 0:
                    break

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    return tokenizer


def _passages(document: str) -> set[int]:
    """Hashes of the long paragraphs, so that editions that differ in punctuation are still found."""
    plain = ("".join(filter(str.isalnum, paragraph.lower())) for paragraph in document.split("\n"))
    return {hash(paragraph) for paragraph in plain if len(paragraph) >= LONG_PARAGRAPH}


def _pieces(document: str, size: int = 4000) -> Iterator[str]:
    """A document in pieces of about ``size`` characters, cut between paragraphs: BPE is slow on one long string."""
    piece: list[str] = []
    length = 0
    for paragraph in document.split("\n"):
        piece.append(paragraph)
        length += len(paragraph)
        if length > size:
            yield "\n".join(piece) + "\n"
            piece, length = [], 0
    if piece:
        yield "\n".join(piece)


def _encode(tokenizer: Tokenizer, files: list[Path], work: Path) -> None:
    """Write ``train.npy``, a held-out array a source, and ``sources.json`` with what went where."""
    end = tokenizer.token_to_id(END)
    secret = set[int]()
    for path in files:
        for number, document in enumerate(documents(path)):
            if number % HELD_OUT_EVERY == 0:
                secret |= _passages(document)
    train: list[NDArray[np.uint16]] = []
    counts: dict[str, dict[str, int]] = {}
    for path in files:
        held: list[NDArray[np.uint16]] = []
        count = {"documents": 0, "held_out": 0, "other_editions": 0, "tokens": 0, "held_out_tokens": 0}
        for number, document in enumerate(documents(path)):
            count["documents"] += 1
            is_held = number % HELD_OUT_EVERY == 0
            if not is_held and len(_passages(document) & secret) > SHARED_PARAGRAPHS:
                count["other_editions"] += 1
                continue
            pieces = tokenizer.encode_batch(list(_pieces(document)))
            ids = np.array([i for piece in pieces for i in piece.ids] + [end], dtype=np.uint16)
            if is_held:
                count["held_out"] += 1
                held.append(ids[:HELD_OUT_TOKENS])
                count["held_out_tokens"] += len(held[-1])
            else:
                count["tokens"] += len(ids)
                train.append(ids)
        np.save(work / f"heldout_{path.name}.npy", np.concatenate(held))
        counts[path.name.removesuffix(".txt.xz")] = count
        typer.echo(f"encoded {path.name}: {count}")
    np.save(work / "train.npy", np.concatenate(train))
    (work / "sources.json").write_text(json.dumps(counts, indent=2))
