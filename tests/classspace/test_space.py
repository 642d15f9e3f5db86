"""The class space: built from a table, the same bytes each time, able to encode classes described later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.classspace.space import ClassSpace, build
from ayeaye.data.table import ClassTable
from ayeaye.errors import ClassSpaceError, CoincidentClasses, UnknownWords
from ayeaye.params import Classes

ANIMALS = {
    "Polar-Bear": "A large white bear that walks on ice and eats fish.",
    "brown_bear": "A large brown bear of the forest that eats fish and berries.",
    "Ring-tailed lemur": "A small grey lemur with a long striped tail that eats fruit.",
    "RedFox": "A small red fox of the forest with a thick tail.",
    "Seal": "A grey seal that swims and eats fish under the ice.",
}
ATTRIBUTES = pd.DataFrame(
    {"size": [1.0, 0.9, 0.2, 0.3, 0.7], "tail": [0.0, 0.1, 1.0, 0.9, 0.1], "water": [0.6, 0.2, 0.0, 0.0, 1.0]}
)


def table(animals: dict[str, str] = ANIMALS, **matrices: pd.DataFrame) -> ClassTable:
    frame = pd.DataFrame({"name": list(animals), "role": "seen", "description": list(animals.values())})
    return ClassTable(frame, matrices)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """GloVe text of most of the words in use, at random directions."""
    words = "polar bear brown large white ice fish lemur small grey tail fruit fox red forest seal eats long"
    rng = np.random.default_rng(0)
    rows = [f"{word} {' '.join(f'{x:.4f}' for x in rng.standard_normal(8))}" for word in words.split()]
    path = tmp_path / "words.txt"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def settings(vectors: Path, source: str | list[str], **more: object) -> Classes:
    if "glove" in source:
        more = {"vectors": {"glove": str(vectors)}, **more}
    return Classes(source=source, dimensions=8, **more)


SOURCES: list[str | list[str]] = [
    "word2vec",
    "fasttext",
    "glove",
    "tfidf",
    "attributes",
    ["glove", "tfidf", "attributes"],
]


@pytest.mark.parametrize("source", SOURCES, ids=str)
class TestEverySource:
    def space(self, vectors: Path, source: str | list[str]) -> ClassSpace:
        return build(table(attributes=ATTRIBUTES), settings(vectors, source), Path)

    def test_vectors_are_of_unit_length_in_the_order_of_the_table(self, vectors: Path, source) -> None:
        space = self.space(vectors, source)
        assert space.names == list(ANIMALS)
        assert space.vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(space.vectors, axis=1), 1, atol=1e-5)
        assert [row["name"] for row in space.coverage] == space.names

    def test_encoding_the_same_classes_again_gives_the_same_vectors(self, vectors: Path, source) -> None:
        space = self.space(vectors, source)
        np.testing.assert_array_equal(space.encode(table(attributes=ATTRIBUTES)), space.vectors)

    def test_one_class_described_later_is_encoded_from_stored_state_alone(
        self, vectors: Path, source, tmp_path: Path
    ) -> None:
        described = {"Ice bear cub": "A small white bear of the ice."}
        later = table(described, attributes=pd.DataFrame({"water": [0.6], "size": [0.5], "tail": [0.0]}))
        built = self.space(vectors, source)
        built.save(tmp_path / "space")
        vectors.unlink()
        loaded = ClassSpace.load(tmp_path / "space").encode(later)
        assert loaded.shape == (1, built.vectors.shape[1])
        np.testing.assert_array_equal(loaded, built.encode(later))

    def test_the_same_input_makes_the_same_bytes(self, vectors: Path, source, tmp_path: Path) -> None:
        for folder in ("one", "other"):
            self.space(vectors, source).save(tmp_path / folder)
        for name in ("space.json", "space.safetensors"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()

    def test_loading_and_saving_again_changes_nothing(self, vectors: Path, source, tmp_path: Path) -> None:
        self.space(vectors, source).save(tmp_path / "one")
        ClassSpace.load(tmp_path / "one").save(tmp_path / "other")
        for name in ("space.json", "space.safetensors"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_class_described_later_lies_near_what_it_resembles() -> None:
    space = build(table(), Classes(source="tfidf"), Path)
    cosines = space.vectors @ space.encode(table({"Ice bear cub": "A small white bear of the ice."}))[0]
    assert space.names[int(cosines.argmax())] == "Polar-Bear"


def test_weights_say_how_much_of_a_cosine_each_source_makes() -> None:
    both = table(attributes=ATTRIBUTES, other=ATTRIBUTES**2 + 0.1)
    parts = [build(both, Classes(source=name), Path).vectors for name in ("attributes", "other")]
    joined = build(both, Classes(source=["attributes", "other"], weights=[3.0, 1.0]), Path).vectors
    expected = 0.75 * parts[0] @ parts[0].T + 0.25 * parts[1] @ parts[1].T
    np.testing.assert_allclose(joined @ joined.T, expected, atol=1e-5)


def test_words_said_of_every_class_weigh_little() -> None:
    said = {
        name: f"Animal body: {looks}"
        for name, looks in {
            "lemur": "striped tail, striped fur",
            "fox": "bushy tail, red fur",
            "bear": "white coat, thick fur",
            "seal": "grey coat, smooth skin",
        }.items()
    }

    def weights(smoothing: float | None) -> list[float]:
        part = build(table(said), Classes(source="word2vec", dimensions=8, smoothing=smoothing), Path)
        return [part.encoder.parts[0].table.weight(word, smoothing) for word in ("animal", "tail", "red")]

    assert weights(None) == [1, 1, 1]
    assert weights(1e-3) == sorted(weights(1e-3))


def test_a_space_of_before_words_had_weights_is_read_as_it_was(vectors: Path) -> None:
    built = build(table(), settings(vectors, "word2vec", smoothing=None), Path)
    about, arrays = built.state()
    del about["parts"][0]["smoothing"], arrays["0/frequencies"]
    np.testing.assert_array_equal(ClassSpace.from_state(about, arrays).encode(table()), built.vectors)


def test_names_are_used_where_a_class_has_no_description(vectors: Path) -> None:
    space = build(table({**ANIMALS, "Seal": ""}), settings(vectors, "glove"), Path)
    assert space.encoder.parts[0].text == "synonyms"
    assert space.coverage[2]["parts"][0]["missing"] == ["Ring", "tailed"]


def test_synonyms_make_up_for_an_unknown_name(vectors: Path) -> None:
    frame = table({**ANIMALS, "Nanook": ""}).frame
    with pytest.raises(UnknownWords, match="Nanook"):
        build(ClassTable(frame), settings(vectors, "glove", text="names"), Path)
    frame["synonyms"] = [[], [], [], [], [], ["white bear"]]
    space = build(ClassTable(frame), settings(vectors, "glove"), Path)
    assert (space.vectors[5] @ space.vectors[:5].T).argmax() in (0, 1)


def test_unknown_words_name_classes_tokens_and_near_spellings(vectors: Path) -> None:
    with pytest.raises(UnknownWords) as caught:
        build(table({**ANIMALS, "Lemurr": "", "Quokka": ""}), settings(vectors, "glove", text="names"), Path)
    for said in ("2 classes", "Lemurr", "near: lemur", "Quokka"):
        assert said in str(caught.value)


def test_a_later_class_without_a_known_term_is_refused_by_name(vectors: Path) -> None:
    for source in ("glove", "tfidf"):
        space = build(table(), settings(vectors, source), Path)
        with pytest.raises(UnknownWords, match="Gadget"):
            space.encode(table({"Gadget": "Zyzzyva qwertz."}))


def test_classes_that_differ_in_an_unknown_word_alone_stay_apart(vectors: Path) -> None:
    twins = {"Blueberry": "Blueberry fruit, white.", "Vanilla": "Vanilla fruit, white."}
    space = build(table({**ANIMALS, **twins}), settings(vectors, "glove"), Path)
    assert space.vectors[5] @ space.vectors[6] < 0.99
    assert "Vanilla" in space.coverage[6]["parts"][0]["missing"]


@pytest.mark.parametrize("source", ["glove", "tfidf", "word2vec"])
def test_the_same_description_twice_names_both_classes(vectors: Path, source: str) -> None:
    with pytest.raises(CoincidentClasses, match=r"Seal and Sealion have the same description"):
        build(table({**ANIMALS, "Sealion": ANIMALS["Seal"]}), settings(vectors, source), Path)


def test_a_later_class_described_like_a_known_one_is_refused(vectors: Path) -> None:
    space = build(table(), settings(vectors, "tfidf"), Path)
    with pytest.raises(CoincidentClasses, match="Sealion and Seal"):
        space.encode(table({"Sealion": ANIMALS["Seal"]}))
    assert space.encode(table({"Seal": ANIMALS["Seal"]})).shape == (1, space.vectors.shape[1])


def test_classes_that_are_all_alike_are_refused() -> None:
    alike = pd.DataFrame({"size": [1.0] * 5, "tail": [0.5] * 5})
    with pytest.raises(CoincidentClasses, match="Polar-Bear and brown_bear"):
        build(table(attributes=alike), Classes(source="attributes"), Path)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (ATTRIBUTES.mask(ATTRIBUTES == 0.9), "brown_bear has no number in size"),
        (ATTRIBUTES.assign(size=[0, 1, 1, 1, 1], tail=0.0, water=0.0), "zero throughout for Polar-Bear"),
    ],
)
def test_attributes_with_gaps_name_class_and_column(matrix: pd.DataFrame, said: str) -> None:
    with pytest.raises(ClassSpaceError, match=said):
        build(table(attributes=matrix), Classes(source="attributes"), Path)


def test_a_later_class_needs_every_attribute() -> None:
    space = build(table(attributes=ATTRIBUTES), Classes(source="attributes"), Path)
    with pytest.raises(ClassSpaceError, match="have no attributes"):
        space.encode(table({"Walrus": "A large seal."}))
    with pytest.raises(ClassSpaceError, match="attributes lacks tail, water"):
        space.encode(table({"Walrus": "A large seal."}, attributes=pd.DataFrame({"size": [1.0]})))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"source": "tfdif"}, "did you mean tfidf"),
        ({"source": ["tfidf", "attributes"], "weights": [1.0]}, "1 numbers for 2 sources"),
        ({"source": ["tfidf", "attributes"], "weights": [1.0, -1.0]}, "expected positive numbers"),
        ({"source": ["tfidf", "tfidf"]}, "different sources"),
        ({"source": []}, "one or more"),
        ({"source": "glove"}, "set classes.vectors"),
        ({"source": "word2vec", "vectors": "nowhere.bin"}, "nowhere.bin is not there"),
        ({"source": "word2vec", "corpus": "nowhere.txt"}, "nowhere.txt cannot be read"),
    ],
)
def test_wrong_settings_say_what_to_do(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ClassSpaceError, match=said):
        build(table(attributes=ATTRIBUTES), Classes(**wrong), Path)


def test_a_corpus_is_read_beside_the_descriptions(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("Walruses rest on ice.\nA walrus eats fish.\n", encoding="utf-8")
    space = build(table(), Classes(corpus="corpus.txt", dimensions=8), lambda name: tmp_path / name)
    assert "walrus" in space.encoder.parts[0].table
    assert "lemur" in space.encoder.parts[0].table


def test_what_is_not_a_class_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassSpaceError, match="holds no class space"):
        ClassSpace.load(tmp_path)
    build(table(), Classes(source="tfidf"), Path).save(tmp_path)
    about = json.loads((tmp_path / "space.json").read_text())
    (tmp_path / "space.json").write_text(json.dumps({**about, "version": 99}))
    with pytest.raises(ClassSpaceError, match="version 99"):
        ClassSpace.load(tmp_path)
    (tmp_path / "space.json").write_text(json.dumps({**about, "parts": [{"kind": "tfidf"}]}))
    with pytest.raises(ClassSpaceError, match="damaged"):
        ClassSpace.load(tmp_path)
    (tmp_path / "space.safetensors").write_bytes(b"cut short")
    with pytest.raises(ClassSpaceError, match="damaged"):
        ClassSpace.load(tmp_path)
