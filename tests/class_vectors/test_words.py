"""Word vectors: every format read, damaged files refused, training that repeats itself."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from ayeaye.class_vectors import words
from ayeaye.class_vectors.words import WordTable, read, train
from ayeaye.core.errors import ClassSpaceError

VECTORS = {
    "the": [1.0, 0.0, 0.5, 0.0],
    "bear": [0.0, 1.0, 0.0, 0.25],
    "polar_bear": [0.0, 1.0, 1.0, 0.0],
    "Lemur": [0.5, 0.5, -1.0, 0.0],
    "söt": [0.0, 0.0, 0.0, 1.0],
}
SENTENCES = [
    line.split()
    for line in (
        "small brown lemur climbs trees",
        "large white bear walks ice",
        "small grey lemur eats fruit",
        "large brown bear eats fish",
        "white bird flies over ice",
    )
]


def lines(header: bool) -> bytes:
    rows = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in VECTORS.items()]
    return ((f"{len(VECTORS)} 4\n" if header else "") + "".join(rows)).encode()


def binary(newlines: bool = True) -> bytes:
    end = b"\n" if newlines else b""
    rows = [word.encode() + b" " + struct.pack("<4f", *vector) + end for word, vector in VECTORS.items()]
    return f"{len(VECTORS)} 4\n".encode() + b"".join(rows)


FORMATS = {
    "word2vec binary": binary(),
    "word2vec binary without newlines": binary(newlines=False),
    "text with a header": lines(header=True),
    "text without a header": lines(header=False),
    "text with a byte order mark": b"\xef\xbb\xbf" + lines(header=True),
    "text with tabs": lines(header=True).replace(b" ", b"\t").replace(b"\t", b" ", 1),
    "text with tabs and no header": lines(header=False).replace(b" ", b"\t"),
    "gzipped binary": gzip.compress(binary()),
    "gzipped text": gzip.compress(lines(header=False)),
}


@pytest.fixture(params=FORMATS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / ("vectors.gz" if "gzipped" in request.param else "vectors")
    path.write_bytes(FORMATS[request.param])
    return path


def test_every_format_gives_the_same_directions(file: Path) -> None:
    table = read(file)
    assert table.words == list(VECTORS)
    for word, vector in VECTORS.items():
        found = table.find(word)
        assert found is not None
        np.testing.assert_allclose(found, np.array(vector) / np.linalg.norm(vector), atol=1e-3)


def test_words_beyond_the_most_frequent_are_kept_only_when_wanted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "KEPT", 2)
    assert read(file, {"Lemur", "okapi"}).words == ["the", "bear", "Lemur"]


def test_agrees_with_gensim_on_a_file_that_gensim_wrote(tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    model = KeyedVectors(4)
    model.add_vectors(list(VECTORS), np.array(list(VECTORS.values()), np.float32))
    for kind in (True, False):
        model.save_word2vec_format(str(tmp_path / "v"), binary=kind)
        table = read(tmp_path / "v")
        assert table.words == model.index_to_key
        np.testing.assert_allclose(table.vectors, model.get_normed_vectors(), atol=1e-3)


def test_a_glove_word_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(lines(header=False) + b". . . 1 2 3 4\n")
    assert read(tmp_path / "v").words[-1] == ". . ."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (binary()[:-9], "header says 5 words, it ends at 4"),
        (
            b"9" + lines(header=True)[1:],
            r"says 9 words, and 5 whole lines follow; .*\(head -n\), write `5 4`",
        ),
        (lines(header=False) + b"okapi 1 2\n", "line 6 has 2 numbers, expected 4"),
        (lines(header=False) + b"okapi 1 2 x 4\n", "could not convert"),
        (lines(header=False) + b"okapi 1 2 nan 4\n", "NaN"),
        (b"name,description\nlemur,small\n", "holds no word vectors"),
        (pickle.dumps({"lemur": [1.0, 2.0]}), "is a pickle of Python, which may run code and is not read"),
        (b"\x1f\x8b not gzip", "is damaged .*fetch the file again"),
        ((793712314).to_bytes(4, "little") + b"\x0c\0\0\0 cut short", "fastText .bin"),
    ],
)
def test_a_file_that_holds_no_whole_vectors_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(ClassSpaceError, match=said):
        read(tmp_path / "v")


def test_a_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_bytes(gzip.compress(lines(header=True)))
    assert read(tmp_path / "vectors.txt").words == list(VECTORS)
    (tmp_path / "cc.bin.gz").write_bytes(gzip.compress((793712314).to_bytes(4, "little") + bytes(100)))
    with pytest.raises(ClassSpaceError, match=r"fastText \.bin compressed with gzip.*unpack it with gunzip"):
        read(tmp_path / "cc.bin.gz")


def test_words_that_are_not_utf8_are_never_kept_as_others(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(lines(header=True).decode().encode("latin-1"))
    with pytest.raises(ClassSpaceError, match=r"not UTF-8, word 5 is 'söt' as Latin-1: .*iconv -f latin1"):
        read(path)
    # One that was cut within a letter, among others that were not, is left out.
    path.write_bytes(lines(header=False) + "käfer 1 1 1 1\n".encode() + b"k\xc3 1 2 3 4\n")
    assert read(path).words == [*VECTORS, "käfer"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClassSpaceError, match=r"nowhere\.bin is not there"):
        read(tmp_path / "nowhere.bin")


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.gz").write_bytes(gzip.compress(binary())[:-12])
    with pytest.raises(ClassSpaceError, match="damaged"):
        read(tmp_path / "v.gz")


class TestLookup:
    table = WordTable(list(VECTORS), np.array(list(VECTORS.values()), np.float16))

    def test_cases_are_tried(self) -> None:
        for word in ("LEMUR", "lemur", "Lemur", "BEAR"):
            assert self.table.find(word) is not None
        assert self.table.find("okapi") is None

    def test_a_name_is_one_entry_before_it_is_its_words(self) -> None:
        for name in ("polar_bear", "Polar-Bear", "polar bear", "PolarBear"):
            vector, missing = self.table.find_name(name)
            np.testing.assert_allclose(vector, np.array([0, 1, 1, 0]) / np.sqrt(2), atol=1e-3)
            assert missing == []

    def test_a_name_of_several_words_is_their_mean_and_says_what_is_missing(self) -> None:
        vector, missing = self.table.find_name("Bear-Lemur-Okapi")
        expected = self.table.find("bear") + self.table.find("lemur")
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)
        assert missing == ["Okapi"]

    def test_unknown_words_take_dimensions_of_their_own(self) -> None:
        one, missing = self.table.mean(["bear", "quokkas"], spare=words.SPARE)
        other, _ = self.table.mean(["bear", "Quokka"], spare=words.SPARE)
        third, _ = self.table.mean(["bear", "okapi"], spare=words.SPARE)
        assert missing == ["quokkas"]
        np.testing.assert_array_equal(one, other)
        assert float(one @ third) < 0.8
        assert self.table.mean(["okapi"], spare=words.SPARE) == (None, ["okapi"])


class TestFrequencies:
    table = WordTable(
        list(VECTORS), np.array(list(VECTORS.values()), np.float16), frequencies=np.full(5, 0.1, np.float32)
    )

    def file(self, tmp_path: Path, names: list[str]) -> Path:
        path = tmp_path / "v"
        path.write_text("".join(f"{name} 1 {number + 1}\n" for number, name in enumerate(names)))
        return path

    def test_a_frequent_word_weighs_less(self) -> None:
        assert self.table.weight("bear", 0.1) == pytest.approx(0.5)
        assert self.table.weight("okapi", 0.1) == 1
        assert self.table.weight("bear", None) == 1
        assert TestLookup.table.weight("bear", 0.1) == 1

    def test_a_mean_is_by_weight(self) -> None:
        shares = np.array([0.9, 0.01, 0.0, 0.0, 0.0], np.float32)
        table = WordTable(self.table.words, self.table.vectors, frequencies=shares)
        the, bear = table.find("the"), table.find("bear")
        for mean in (
            table.mean(["the", "bear"], smoothing=0.01)[0],
            table.find_name("The Bear", smoothing=0.01)[0],
        ):
            expected = 0.01 / 0.91 * the + 0.5 * bear
            np.testing.assert_allclose(mean, expected / np.linalg.norm(expected), atol=1e-6)

    def test_a_file_in_the_order_of_frequency_follows_zipf(self, tmp_path: Path) -> None:
        table = read(self.file(tmp_path, [f"{number:x}" for number in range(words.RANKED, 0, -1)]))
        assert table.frequencies is not None
        assert table.frequencies.sum() == pytest.approx(1, rel=1e-5)
        assert table.frequencies[0] / table.frequencies[9] == pytest.approx(10)

    @pytest.mark.parametrize("count", [words.RANKED - 1, words.RANKED])
    def test_a_short_file_or_one_by_alphabet_says_nothing_of_frequency(
        self, tmp_path: Path, count: int
    ) -> None:
        order = range(count) if count == words.RANKED else range(count, 0, -1)
        assert read(self.file(tmp_path, [f"{number:06}" for number in order])).frequencies is None

    @pytest.mark.parametrize("source", ["word2vec", "fasttext"])
    def test_training_counts_the_corpus(self, source: str) -> None:
        table = train(SENTENCES, source, 8, seed=0)
        counted = dict(zip(table.words, table.frequencies, strict=True))
        assert counted["small"] == pytest.approx(2 / 25)
        assert counted["lemur"] == pytest.approx(2 / 25)
        assert counted["ice"] == pytest.approx(2 / 25)
        assert counted["bird"] == pytest.approx(1 / 25)


@pytest.mark.parametrize("source", ["word2vec", "fasttext"])
def test_training_twice_gives_the_same_bits(source: str) -> None:
    one, other = (train(SENTENCES, source, 8, seed=3) for _ in range(2))
    assert one.words == other.words
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert not np.array_equal(one.vectors, train(SENTENCES, source, 8, seed=4).vectors)


def test_words_that_share_contexts_come_to_lie_closer() -> None:
    sentences = [[animal, "eats", "green", "leaves"] for animal in ("lemur", "sloth")] * 30
    sentences += [["engine", "burns", "diesel", "oil"]] * 30
    table = train(sentences, "word2vec", 16, seed=0)
    lemur, sloth, engine = (table.find(word) for word in ("lemur", "sloth", "engine"))
    assert lemur @ sloth > lemur @ engine + 0.05


def test_training_without_a_word_is_refused() -> None:
    with pytest.raises(ClassSpaceError, match="no words to train"):
        train([[], ["alone"]], "word2vec", 8, seed=0)


class TestFastText:
    @pytest.fixture(scope="class")
    def model(self):
        from gensim.models import FastText

        return FastText(SENTENCES, vector_size=8, min_count=1, workers=1, seed=0, bucket=500, epochs=5)

    @pytest.fixture(scope="class")
    def path(self, model, tmp_path_factory: pytest.TempPathFactory) -> Path:
        from gensim.models.fasttext import save_facebook_model

        path = tmp_path_factory.mktemp("fasttext") / "model.bin"
        save_facebook_model(model, str(path))
        return path

    def test_spells_out_words_outside_the_vocabulary_as_gensim_does(self, model, path: Path) -> None:
        table = read(path)
        for word in ("lemurs", "bearish", "påfågel", "q"):
            expected = model.wv.get_vector(word)
            found = table.find(word)
            if not np.any(expected):
                continue
            np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=5e-3)

    def test_counts_of_the_file_are_kept(self, path: Path) -> None:
        table = read(path, {"lemurs"})
        counted = dict(zip(table.words, table.frequencies, strict=True))
        assert counted["eats"] == pytest.approx(2 / 25)
        assert counted["bird"] == pytest.approx(1 / 25)

    def test_too_many_ngrams_to_keep_leave_the_words_in_use(
        self, model, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(words, "KEPT", 100)
        table = read(path, {"lemurs", "bear"})
        assert table.ngrams is None
        expected = model.wv.get_vector("lemurs", norm=True)
        np.testing.assert_allclose(table.find("lemurs"), expected, atol=5e-3)
        assert table.weight("lemurs", 1e-3) == 1
        assert table.find("bearish") is None
