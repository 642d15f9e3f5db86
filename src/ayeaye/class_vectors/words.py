"""Word vectors: read from a file or trained on a corpus, kept as one compact table.

Formats, told apart by content: word2vec binary and text, GloVe text without a header, fastText text and
fastText's own .bin; each but the last also compressed with gzip.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ayeaye.class_vectors import text
from ayeaye.core import contents
from ayeaye.core.errors import ClassSpaceError
from ayeaye.core.unicode_checks import normal

KEPT = 50_000  # most frequent words that are kept, besides those in use
RANKED = 5_000  # words from which on the order of a file is taken for that of a language's frequencies
LONGEST = 20  # characters of a word in a script without spaces
SPARE = 256  # dimensions for words outside the vocabulary
BUCKETS = 20_000  # of the character n-grams of a fastText model trained here
_FASTTEXT_MAGIC = (793712314).to_bytes(4, "little")
_BINARY, _TEXT, _BARE, _FACEBOOK = (
    "word2vec binary",
    "text with header",
    "text without header",
    "fastText .bin",
)

_BROKEN = "surrogateescape"  # what is not UTF-8 in a word can be told from what is

Summands = dict[str, tuple[float, np.ndarray]]  # by what a person reads: its value, and the vector it adds


@dataclass(frozen=True)
class WordTable:
    """Words, most frequent first, and their vectors (V, k) float16; with n-grams, words outside it too.

    `ngrams` (B, k) float16 holds a fastText model's character n-grams of `lengths` by hash bucket;
    `frequencies` (V,) float32 the share of each word in running text, None where nothing tells.
    """

    words: list[str]
    vectors: np.ndarray
    ngrams: np.ndarray | None = None
    lengths: tuple[int, int] = (3, 6)
    origin: str = ""
    frequencies: np.ndarray | None = None
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {word: row for row, word in enumerate(self.words)})

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def __contains__(self, word: str) -> bool:
        return word in self._rows

    def find(self, word: str) -> np.ndarray | None:
        """The unit vector (k,) of a word under any of its cases, or None."""
        row = self._row(word)
        return self._spelled(word.lower()) if row is None else _unit(self.vectors[row])

    def weight(self, word: str, smoothing: float | None) -> float:
        """a / (a + p) of a word of frequency p, `smoothing` being a: smooth inverse frequency (Arora 2017).

        It does for any language what a list of stop words does for one: without that list, it placed held-out
        seen classes better by two points, and beside it no worse. 1 for a word outside the table, which is
        rare, and throughout where `smoothing` or the frequencies are None.
        """
        row = self._row(word)
        if smoothing is None or self.frequencies is None or row is None:
            return 1.0
        return smoothing / (smoothing + float(self.frequencies[row]))

    def find_name(self, name: str, smoothing: float | None = None) -> tuple[np.ndarray | None, list[str]]:
        """The unit vector (k,) of a name, whole or as the mean of its words, and the words not found."""
        summands, missing = self.name_summands(name, smoothing)
        return _sum(summands), missing

    def name_summands(self, name: str, smoothing: float | None = None) -> tuple[Summands, list[str]]:
        """What the vector of a name is the sum of, at unit length: the name, or its words; and those not found."""
        for form in text.whole_names(name):
            if form in self._rows:
                return {form: (1.0, _unit(self.vectors[self._rows[form]]))}, []
        return self.summands(self.cut(text.name_words(name) or [name]), smoothing=smoothing)

    def cut(self, words: list[str]) -> list[str]:
        """The words; in place of a run without spaces the longest words in it that are known, from its beginning on.

        What lies between these is one word that is not known.
        """
        return [
            part
            for word in words
            for part in (self._longest(word) if text.unspaced(word) and word not in self else [word])
        ]

    def _longest(self, run: str) -> list[str]:
        single, parts, start, known = text.characters(run), list[str](), 0, True
        while start < len(single):
            ends = range(min(len(single), start + LONGEST), start, -1)
            end = next((end for end in ends if "".join(single[start:end]) in self), 0)
            part = "".join(single[start : end or start + 1])
            if not end and not known:
                parts[-1] += part
            else:
                parts.append(part)
            start, known = end or start + 1, bool(end)
        return parts

    def mean(
        self, words: list[str], spare: int = 0, smoothing: float | None = None
    ) -> tuple[np.ndarray | None, list[str]]:
        """The unit mean (k + spare,) of unit word vectors by their `weight`, and the words not found.

        None in place of the mean when no word was found. Words not found fall into `spare` dimensions of
        their own, each at a direction fixed by its hash: they say nothing of their meaning, but do say which
        texts share them. On descriptions that placed held-out seen classes better than leaving them out (.33
        for .28), and keeps apart texts that differ in such a word alone.
        """
        summands, missing = self.summands(words, spare, smoothing)
        return _sum(summands), missing

    def summands(
        self, words: list[str], spare: int = 0, smoothing: float | None = None
    ) -> tuple[Summands, list[str]]:
        """What `mean` is the sum of, at unit length: of each word its weight and that times its vector; none where
        no word was found."""
        found = {word: self.find(word) for word in words}
        missing = [word for word, vector in found.items() if vector is None]
        known = {word: (self.weight(word, smoothing), v) for word, v in found.items() if v is not None}
        summands = {
            word: (weight, np.concatenate([weight * vector, np.zeros(spare)]))
            for word, (weight, vector) in known.items()
        }
        if summands and spare:
            nothing = np.zeros(self.dimensions)
            summands |= {word: (1.0, np.concatenate([nothing, hashed(word)])) for word in missing}
        return summands, missing

    def _row(self, word: str) -> int | None:
        return next((self._rows[form] for form in text.cases(word) if form in self._rows), None)

    def _spelled(self, word: str) -> np.ndarray | None:
        if self.ngrams is None:
            return None
        buckets = [_hash(gram) % len(self.ngrams) for gram in _grams(word, *self.lengths)]
        return _unit(self.ngrams[buckets].astype(np.float64).mean(axis=0)) if buckets else None


def read(path: Path, wanted: Collection[str] = ()) -> WordTable:
    """The first KEPT words of a file of word vectors, and those of `wanted` further down it.

    Their frequencies are those a fastText .bin counts, else by Zipf's law from their order in the file.
    Raises ClassSpaceError when the file is missing, of no known format, damaged or cut short.
    """
    if not path.is_file():
        raise ClassSpaceError(
            f"{path} is not there: set classes.vectors to a file of word vectors, or leave it empty"
        )
    try:
        kind = _kind(path)
        if kind == _FACEBOOK:
            return _read_facebook(path, wanted)
        with _open(path) as file:
            rows = {_BINARY: _binary_rows, _TEXT: _text_rows, _BARE: _bare_rows}[kind](file, path)
            return _table(rows, set(wanted), path)
    except (OSError, EOFError, ValueError) as error:
        raise ClassSpaceError(f"{path} is damaged ({error}): fetch the file again") from None


def train(
    sentences: list[list[str]], source: str, dimensions: int, seed: int, origin: str = "the corpus"
) -> WordTable:
    """Word2Vec (Mikolov 2013) or fastText (Bojanowski 2017) trained on `sentences`; deterministic by seed.

    Small corpora are read often: some two million words in all, between 5 and 200 times each.
    """
    sentences = [sentence for sentence in sentences if len(sentence) > 1]
    total = sum(map(len, sentences))
    if not total:
        raise ClassSpaceError("no words to train word vectors on: set classes.corpus or classes.vectors")
    from gensim.models import FastText, Word2Vec

    logging.getLogger("gensim").setLevel(logging.ERROR)
    settings: dict[str, Any] = {
        "vector_size": dimensions,
        "window": 8,
        "min_count": 1,
        "sg": 1,
        "workers": 1,
        "seed": seed,
        "epochs": int(np.clip(2_000_000 // total, 5, 200)),
    }
    if source == "word2vec":
        wv = Word2Vec(sentences, **settings).wv
        spelling: dict[str, Any] = {}
    else:
        wv = FastText(sentences, bucket=BUCKETS, **settings).wv
        spelling = {"ngrams": wv.vectors_ngrams.astype(np.float16), "lengths": (wv.min_n, wv.max_n)}
    known = wv.index_to_key[:KEPT]
    frequencies = _frequencies(wv, known)
    return WordTable(known, _half(wv.vectors[:KEPT]), origin=origin, frequencies=frequencies, **spelling)


def _kind(path: Path) -> str:
    with _open(path) as file:
        head = file.read(1 << 16)
    if not head:
        raise ClassSpaceError(f"{path} is empty: expected word vectors")
    if head.startswith(_FASTTEXT_MAGIC):
        if _gzipped(path):
            raise ClassSpaceError(
                f"{path} is a fastText .bin compressed with gzip, which is read as it is alone: unpack it with gunzip "
                "and name the .bin in classes.vectors"
            )
        return _FACEBOOK
    first, newline, rest = head.partition(b"\n")
    fields = first.split()
    if len(fields) == 2 and all(part.isdigit() for part in fields) and newline:
        return _TEXT if _numbers(rest.split(b"\n", 1)[0], int(fields[1])) else _BINARY
    if len(fields) > 2 and _numbers(first, None):
        return _BARE
    if found := contents.foreign(head):
        raise ClassSpaceError(f"{path} holds no word vectors: it {found}")
    raise ClassSpaceError(
        f"{path} holds no word vectors: expected word2vec (binary or text), GloVe text or a fastText .bin; "
        "pickled models are not read"
    )


def _numbers(line: bytes, width: int | None) -> bool:
    """Whether a line is a word and `width` numbers."""
    fields = line.rstrip().replace(b"\t", b" ").split(b" ")
    numbers = fields[-width:] if width else fields[1:]
    try:
        return len(fields) > (width or 1) and bool(np.isfinite(np.array(numbers, dtype=np.float64)).any())
    except ValueError:
        return False


Row = tuple[str, np.ndarray]


def _binary_rows(file: IO[bytes], path: Path) -> Iterator[Row]:
    count, width = map(int, file.readline().split())
    size = 4 * width
    for row in range(count):
        word = bytearray()
        while (byte := file.read(1)) != b" ":
            if not byte or len(word) > 4096:
                raise ValueError(f"its header says {count} words, row {row + 1} cannot be read")
            word += byte
        content = file.read(size)
        if len(content) < size:
            raise ValueError(f"its header says {count} words, it ends at {row}")
        yield word.lstrip(b"\n").decode(errors=_BROKEN), np.frombuffer(content, "<f4")


def _text_rows(file: IO[bytes], path: Path) -> Iterator[Row]:
    count, width = map(int, file.readline().split())
    found = 0
    for row in _lines(file, width, 2):
        found += 1
        yield row
    if found < count:
        raise ClassSpaceError(
            f"{path} is cut off: its header says {count} words, and {found} whole lines follow; fetch it again, or if "
            f"it was cut on purpose (head -n), write `{found} {width}` as its first line"
        )


def _bare_rows(file: IO[bytes], path: Path) -> Iterator[Row]:
    first = file.readline()
    width = len(first.split()) - 1
    yield from _lines(io.BytesIO(first), width, 1)
    yield from _lines(file, width, 2)


def _lines(file: IO[bytes], width: int, start: int) -> Iterator[Row]:
    for number, line in enumerate(file, start):
        if not line.strip():
            continue
        # Some GloVe words hold spaces: the numbers are counted from the right.
        word, *numbers = line.rstrip().replace(b"\t", b" ").rsplit(b" ", width)
        if len(numbers) != width:
            raise ValueError(f"line {number} has {len(numbers)} numbers, expected {width}")
        yield word.decode(errors=_BROKEN), np.array(numbers, dtype=np.float32)


def _table(rows: Iterator[Row], wanted: set[str], path: Path) -> WordTable:
    kept: dict[str, np.ndarray] = {}
    accented, broken = 0, []
    for number, (written, vector) in enumerate(rows):
        if not written.isascii():
            accented += 1
            if any("\udc80" <= letter <= "\udcff" for letter in written):
                broken.append((number, written.encode(errors=_BROKEN)))
                continue
        word = normal(written)
        if (number < KEPT or word in wanted) and word not in kept:
            kept[word] = _half(vector)
    if len(broken) > accented / 2:  # a few are cut within a letter in published files, and are left out
        number, first = broken[0]
        raise ClassSpaceError(
            f"{path} is not UTF-8, word {number + 1} is {first.decode('latin-1')!r} as Latin-1: convert it, such as "
            "with `iconv -f latin1 -t utf-8`"
        )
    if not kept:
        raise ClassSpaceError(f"{path} holds no words: expected word vectors")
    known = list(kept)
    return WordTable(known, np.stack(list(kept.values())), origin=path.name, frequencies=_by_rank(known))


def _by_rank(words: list[str]) -> np.ndarray | None:
    """(V,) frequencies by Zipf's law, 1 / (rank · H_V), as files of vectors list frequent words first.

    None for a short list, or one in the order of the alphabet: its order says nothing of a language.
    """
    head = [word.lower() for word in words[:100]]
    if len(words) < RANKED or head == sorted(head):
        return None
    shares = 1 / np.arange(1.0, len(words) + 1)
    return (shares / shares.sum()).astype(np.float32)


def _frequencies(model: Any, words: list[str]) -> np.ndarray:
    """(V,) of `words`, as gensim's vectors count them; 0 for those that it does not know."""
    counts = {word: model.get_vecattr(word, "count") for word in model.index_to_key}
    total = max(sum(counts.values()), 1)
    return np.array([counts.get(word, 0) / total for word in words], np.float32)


def _read_facebook(path: Path, wanted: Collection[str]) -> WordTable:
    from gensim.models.fasttext import load_facebook_vectors

    try:
        model = load_facebook_vectors(str(path))
    except Exception as error:  # gensim raises whatever the damaged bytes lead it to
        raise ClassSpaceError(f"{path} cannot be read as a fastText .bin ({error}): fetch it again") from None
    known: dict[str, str] = {}  # as the model writes them
    for word in model.index_to_key:
        known.setdefault(normal(word), word)
    words = list(known)[:KEPT]
    there = set(words)
    words += sorted(word for word in wanted if word in known and word not in there)
    small = len(model.vectors_ngrams) <= KEPT
    if not small:
        # Too many n-grams to ship: the words in use are spelled out now, while they are at hand.
        words += sorted(
            {w for w in wanted if not (text.unspaced(w) or any(form in known for form in text.cases(w)))}
        )
    return WordTable(
        words,
        _half(np.stack([model.get_vector(known.get(word, word)) for word in words])),
        model.vectors_ngrams.astype(np.float16) if small else None,
        (model.min_n, model.max_n),
        path.name,
        _frequencies(model, [known.get(word, word) for word in words]),
    )


def _open(path: Path) -> IO[bytes]:
    opened: Any = gzip.open if _gzipped(path) else open
    file: IO[bytes] = opened(path, "rb")
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _half(vectors: np.ndarray) -> np.ndarray:
    """Unit rows in float16: word vectors are only ever used for their direction."""
    vectors = np.asarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise ClassSpaceError("the word vectors hold NaN or infinite numbers: use another file")
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float16)


def _sum(summands: Summands) -> np.ndarray | None:
    """The sum at unit length, or None of none."""
    return _unit(np.sum([vector for _, vector in summands.values()], axis=0)) if summands else None


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = vector.astype(np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def hashed(word: str) -> np.ndarray:
    """(SPARE,) unit vector of random signs, the same for a word and its plural whatever their case."""
    digest = hashlib.sha256(text.stem(text.folded(word)).encode()).digest()
    return (2.0 * np.unpackbits(np.frombuffer(digest, np.uint8)) - 1) / np.sqrt(SPARE)


def _grams(word: str, shortest: int, longest: int) -> list[bytes]:
    """fastText's character n-grams of a word, with `<` and `>` around it."""
    padded = f"<{word}>"
    return [
        padded[start : start + length].encode()
        for start in range(len(padded))
        for length in range(shortest, min(longest, len(padded) - start) + 1)
        if not (length == 1 and (start == 0 or start + 1 == len(padded)))
    ]


def _hash(gram: bytes) -> int:
    """fastText's 32-bit FNV-1a, which reads bytes as signed."""
    value = 2166136261
    for byte in gram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
