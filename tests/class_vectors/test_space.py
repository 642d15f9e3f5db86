"""The class space: built from a table, the same bytes each time, able to encode classes described later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors.space import ClassSpace, build
from ayeaye.class_vectors.text import shown_left_out
from ayeaye.core.errors import ClassSpaceError, CoincidentClasses, UnknownWords
from ayeaye.core.params import Classes
from ayeaye.data.table import ClassTable

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

SIGNS = pd.DataFrame(
    {
        "walks": [1, 1, 0, 1, 0],
        "bear": [1, 1, 0, 0, 0],
        "white": [1, 0, 0, 0, 0],
        "red": [0, 0, 0, 1, 0],
        "sea": [0, 0, 0, 0, 1],
    }
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


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Sentence vectors, of more classes than are in the table and in another order."""
    path = tmp_path / "given.npz"
    names = ["Walrus", *reversed(ANIMALS)]
    np.savez(path, names=names, vectors=np.random.default_rng(1).standard_normal((len(names), 7)))
    return path


def settings(vectors: Path, source: str | list[str], **more: object) -> Classes:
    files = {"glove": str(vectors), "sentences": str(vectors.with_name("given.npz"))}
    if set(files) & {*([source] if isinstance(source, str) else source)}:
        more = {"vectors": files, **more}
    return Classes(source=source, dimensions=8, **more)


SOURCES: list[str | list[str]] = [
    "word2vec",
    "fasttext",
    "glove",
    "tfidf",
    "attributes",
    "signs",
    "sentences",
    ["glove", "tfidf", "attributes", "sentences"],
]


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("source", SOURCES, ids=str)
class TestEverySource:
    def space(self, vectors: Path, source: str | list[str]) -> ClassSpace:
        return build(self.table(), settings(vectors, source), Path)

    def table(self) -> ClassTable:
        return table(attributes=ATTRIBUTES, signs=SIGNS)

    def test_vectors_are_of_unit_length_in_the_order_of_the_table(self, vectors: Path, source) -> None:
        space = self.space(vectors, source)
        assert space.names == list(ANIMALS)
        assert space.vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(space.vectors, axis=1), 1, atol=1e-5)
        assert [row["name"] for row in space.coverage] == space.names

    def test_encoding_the_same_classes_again_gives_the_same_vectors(self, vectors: Path, source) -> None:
        space = self.space(vectors, source)
        with np.load(vectors.with_name("given.npz")) as file:
            given = pd.DataFrame(file["vectors"][:0:-1])
        again = ClassTable(self.table().frame, {**self.table().matrices, "sentences": given})
        np.testing.assert_array_equal(space.encode(again), space.vectors)

    def test_one_class_described_later_is_encoded_from_stored_state_alone(
        self, vectors: Path, source, tmp_path: Path
    ) -> None:
        described = {"Ice bear cub": "A small white bear of the ice."}
        later = table(
            described,
            attributes=pd.DataFrame({"water": [0.6], "size": [0.5], "tail": [0.0]}),
            signs=pd.DataFrame({"walks": [1], "bear": [1], "white": [0], "red": [0], "sea": [1]}),
            sentences=pd.DataFrame([[0.5, -1.0, 0.0, 2.0, 0.0, 1.0, 0.5]]),
        )
        built = self.space(vectors, source)
        built.save(tmp_path / "space")
        vectors.unlink()
        vectors.with_name("given.npz").unlink()
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


def test_a_name_that_says_more_than_the_description_counts() -> None:
    space = build(table({**ANIMALS, "White-Whale": "Large."}), Classes(source="tfidf"), Path)
    cosines = space.vectors @ space.encode(table({"Grey whale": "Large animal."}))[0]
    assert space.names[int(cosines.argmax())] == "White-Whale"


def test_the_descriptions_alone_know_no_names() -> None:
    renamed = {f"Plain {place}": said for place, said in enumerate(ANIMALS.values())}
    ours, theirs = (
        build(table(names), Classes(source="tfidf"), Path).by_descriptions() for names in (ANIMALS, renamed)
    )
    assert ours is not None and theirs is not None
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=0.05)
    for source in ("attributes", ["attributes", "tfidf"]):
        assert build(table(attributes=ATTRIBUTES), Classes(source=source), Path).by_descriptions() is None


def test_classes_described_alike_may_differ_in_their_attributes() -> None:
    twins = table(
        {**ANIMALS, "Sealion": ANIMALS["Seal"]},
        attributes=pd.concat([ATTRIBUTES, ATTRIBUTES[:1] * 0.5 + 0.2]),
    )
    assert build(twins, Classes(source=["tfidf", "attributes"]), Path).vectors.shape[0] == len(ANIMALS) + 1


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


def test_words_that_no_vector_knows_are_left_out_by_class_all_of_them(vectors: Path) -> None:
    strange = " ".join(f"xyzzy{number}" for number in range(30))
    space = build(
        table({**ANIMALS, f"fruit forest {strange}": ""}), settings(vectors, "glove", text="names"), Path
    )
    assert space.left_out == {
        "Ring-tailed lemur": ["Ring", "tailed"],
        f"fruit forest {strange}": strange.split(),
    }
    assert shown_left_out({"cougar_face": ["cougar"], "b": ["c", "d"]}) == "cougar_face (cougar), b (c, d)"


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
    with pytest.raises(CoincidentClasses, match="Sealion and Seal have the same description"):
        space.encode(table({"Sealion": "The " + ANIMALS["Seal"].upper() + "!"}))
    assert space.encode(table({"Seal": ANIMALS["Seal"]})).shape == (1, space.vectors.shape[1])


def test_classes_that_are_all_alike_are_refused() -> None:
    alike = pd.DataFrame({"size": [1.0] * 5, "tail": [0.5] * 5})
    with pytest.raises(CoincidentClasses, match="Polar-Bear and brown_bear"):
        build(table(attributes=alike), Classes(source="attributes"), Path)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (ATTRIBUTES.mask(ATTRIBUTES == 0.9), "brown_bear has no number in size"),
        (
            ATTRIBUTES.assign(size=[0, 1, 0.5, 1, 1], tail=[0, 1, 0, 0, 1], water=0.0),
            "zero throughout for Polar-Bear",
        ),
    ],
)
def test_attributes_with_gaps_name_class_and_column(matrix: pd.DataFrame, said: str) -> None:
    with pytest.raises(ClassSpaceError, match=said):
        build(table(attributes=matrix), Classes(source="attributes"), Path)


def test_a_class_of_which_no_sign_is_true_is_described_all_the_same() -> None:
    space = build(table(signs=SIGNS), Classes(source="signs"), Path)
    assert not SIGNS.iloc[2].any()
    np.testing.assert_allclose(np.linalg.norm(space.vectors[2]), 1, atol=1e-6)
    ghost = table({"Ghost": "Nothing is known."}, signs=SIGNS.iloc[[2]])
    with pytest.raises(CoincidentClasses, match="Ghost and Ring-tailed lemur"):
        space.encode(ghost)


@pytest.mark.parametrize("matrix", [ATTRIBUTES, SIGNS], ids=["continuous", "binary"])
def test_a_column_that_is_the_same_for_all_changes_nothing(matrix: pd.DataFrame) -> None:
    def vectors(values: pd.DataFrame) -> np.ndarray:
        return build(table(signs=values), Classes(source="signs"), Path).vectors

    for constant in (0.0, 1.0):
        np.testing.assert_array_equal(vectors(matrix.assign(alive=constant)), vectors(matrix))


def test_classes_have_the_vectors_of_their_names(given: Path) -> None:
    space = build(table(), Classes(source="sentences", vectors=str(given)), Path)
    with np.load(given) as file:
        rows = dict(zip(file["names"].tolist(), file["vectors"], strict=True))
    unit = np.stack([rows[name] / np.linalg.norm(rows[name]) for name in ANIMALS])
    expected = unit - unit.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(space.vectors, expected, atol=1e-6)


def test_a_matrix_of_the_table_goes_before_a_file(given: Path) -> None:
    space = build(table(sentences=ATTRIBUTES), Classes(source="sentences", vectors=str(given)), Path)
    np.testing.assert_array_equal(
        space.vectors, build(table(attributes=ATTRIBUTES), Classes(source="attributes"), Path).vectors
    )


def test_a_later_class_needs_its_sentence_vector(given: Path) -> None:
    space = build(table(), Classes(source="sentences", vectors=str(given)), Path)
    with pytest.raises(ClassSpaceError, match="no sentences: give Walrus a row of 7 numbers"):
        space.encode(table({"Walrus": "A large seal."}))


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "zero throughout for Seal"), (np.inf, "Seal has no number")]
)
def test_a_sentence_vector_that_says_nothing_is_refused(tmp_path: Path, value: float, said: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 3))
    vectors[-1] = value
    np.savez(tmp_path / "given.npz", names=list(ANIMALS), vectors=vectors)
    with pytest.raises(ClassSpaceError, match=said):
        build(table(), Classes(source="sentences", vectors=str(tmp_path / "given.npz")), Path)


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
        ({"source": "sentences"}, "sentences are not made here: set classes.vectors"),
        ({"source": "sentence"}, "did you mean sentences"),
        ({"source": "sentences", "vectors": "nowhere.npz"}, "nowhere.npz is not there"),
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
