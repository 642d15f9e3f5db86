"""Words of many scripts: cut where their readers see an end, in whatever form they come."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayeaye.class_vectors import text
from ayeaye.class_vectors.new_class import NewClass
from ayeaye.class_vectors.space import ClassSpace, build
from ayeaye.class_vectors.tfidf import TermTable, terms
from ayeaye.class_vectors.words import WordTable, read, train
from ayeaye.core.errors import UnknownWords
from ayeaye.core.params import Classes
from ayeaye.data.table import ClassTable

# A text, and its words as they are kept: in normal form C.
CUT = {
    "Latin": ("Der Bär, größer; çiğ l'été col·lecció", "Der Bär größer çiğ l'été col·lecció"),
    "Vietnamese": ("Con mèo nhỏ ở Huế", "Con mèo nhỏ ở Huế"),
    "Cyrillic": ("Чёрный йогурт, ёж", "Чёрный йогурт ёж"),
    "Greek": ("μικρή γάτα, σκύλος· ἄλογον", "μικρή γάτα σκύλος ἄλογον"),
    "Arabic": ("قِطّة سوداء، آكل النمل", "قِطّة سوداء آكل النمل"),
    "Persian": ("می\u200cخواهم گربه", "می\u200cخواهم گربه"),
    "Hebrew": ('חָתוּל קָטָן צה"ל ג׳ירפה', 'חָתוּל קָטָן צה"ל ג׳ירפה'),
    "Devanagari": ("छोटी बिल्ली और हिरन।", "छोटी बिल्ली और हिरन"),
    "Tamil": ("சிறிய பூனை, நாய்", "சிறிய பூனை நாய்"),
    "Bengali": ("ছোট বিড়াল", "ছোট বিড়াল"),
    "Malayalam": ("ചെറിയ നായ", "ചെറിയ നായ"),
    "Amharic": ("ትንሽ፡ድመት፣ ውሻ", "ትንሽ ድመት ውሻ"),
    "Korean": ("작은 고양이, 호랑이", "작은 고양이 호랑이"),
    "Armenian": ("Փոքր կատու", "Փոքր կատու"),
    "Chinese": ("黑白相间的大熊猫，吃竹子。", "黑白相间的大熊猫 吃竹子"),
    "Japanese": ("小さいレッサーパンダ、ﾈｺとＴシャツ", "小さいレッサーパンダ ネコと T シャツ"),
    "Thai": ("แมวดำตัวเล็ก กินปลา", "แมวดำตัวเล็ก กินปลา"),
    "Khmer": ("ឆ្មា\u200bខ្មៅ", "ឆ្មា ខ្មៅ"),
}
# Two classes, one that comes later, and a word that the last one shares with the first.
CLASSES = {
    "Latin": ("Bär: groß, weiß, zottig", "Käfer: klein, glänzend", "Eisbär: weiß", "weiß"),
    "Cyrillic": ("Медведь: большой, чёрный", "Ёж: маленький, колючий", "Барибал: чёрный", "чёрный"),
    "Greek": ("Γάτα: μικρή, μαύρη", "Άλογο: μεγάλο, γρήγορο", "Νυχτερίδα: μαύρη", "μαύρη"),
    "Arabic": ("قطة: صَغِيرة سوداء", "حصان: كبير سريع", "خفاش: صغيرة", "صغيرة"),
    "Hebrew": ("חתול: קָטָן שחור", "סוס: גדול מהיר", "עטלף: קטן", "קטן"),
    "Devanagari": ("बिल्ली: छोटी काली", "घोड़ा: बड़ा तेज़", "चमगादड़: काली", "काली"),
    "Tamil": ("பூனை: சிறிய கருப்பு", "குதிரை: பெரிய வேகமான", "வௌவால்: கருப்பு", "கருப்பு"),
    "Amharic": ("ድመት፡ ትንሽ ጥቁር", "ፈረስ፡ ትልቅ ፈጣን", "የሌሊት-ወፍ፡ ጥቁር", "ጥቁር"),
    "Korean": ("고양이: 작은 검은색", "말: 커다란 빠른", "박쥐: 검은색", "검은색"),
    "Chinese": ("大熊猫：黑白相间", "飞鸟：体型很小", "斑马：黑白条纹", "黑白"),
    "Japanese": ("レッサーパンダ：小さくて赤い", "ウマ：大きくて速い", "キンギョ：赤いさかな", "赤い"),
    "Thai": ("แมว: ตัวเล็กสีดำ", "ม้า: ตัวใหญ่เร็ว", "ค้างคาว: มีปีกสีดำ", "สีดำ"),
    "Lao": ("ແມວ: ໂຕນ້ອຍສີດຳ", "ມ້າ: ໂຕໃຫຍ່ໄວ", "ເຈຍ: ມີປີກສີດຳ", "ສີດຳ"),
    "Myanmar": ("ကြောင်: သေးငယ်အနက်ရောင်", "မြင်း: ကြီးမားမြန်ဆန်", "လင်းနို့: တောင်ပံအနက်ရောင်", "အနက်ရောင်"),
}


def parted(described: str) -> tuple[str, str]:
    name, _, description = described.replace("：", ":").replace("፡", ":").partition(":")
    return name, description.strip()


def space(script: str, form: str, settings: Classes) -> tuple[ClassSpace, NewClass]:
    """A class space of texts in one normal form, and the class that comes later in form C."""
    first, second, later, _ = CLASSES[script]
    rows = [parted(unicodedata.normalize(form, each)) for each in (first, second)]
    table = ClassTable(pd.DataFrame(rows, columns=["name", "description"]).assign(role="seen"))
    name, description = parted(unicodedata.normalize("NFC", later))
    return build(table, settings, Path), NewClass(name, description)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("script", CUT)
def test_words_keep_their_marks_in_any_normal_form(script: str, form: str) -> None:
    said, expected = CUT[script]
    assert text.words(unicodedata.normalize(form, said)) == unicodedata.normalize("NFC", expected).split(" ")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("script", CLASSES)
def test_a_later_class_shares_terms_with_a_table_in_any_normal_form(script: str, form: str) -> None:
    space_, later = space(script, form, Classes(source="tfidf", text="descriptions"))
    wider = space_.extended([later])
    to_first, to_second = wider.vectors[:2] @ wider.vectors[2]
    assert to_first > to_second + 0.1
    assert not set(terms(CLASSES[script][3])) & set(wider.unknown_words(later.name))


@pytest.mark.parametrize("script", CLASSES)
def test_word_vectors_of_a_file_are_found_in_any_normal_form_and_without_spaces(
    script: str, tmp_path: Path
) -> None:
    known = [CLASSES[script][3], *(word for each in CLASSES[script][1:2] for word in text.words(each))]
    rng = np.random.default_rng(0)
    rows = [
        f"{unicodedata.normalize('NFD', word)} {' '.join(f'{x:.3f}' for x in rng.normal(size=6))}"
        for word in known
    ]
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    settings = Classes(source="glove", vectors={"glove": str(path)}, text="descriptions", smoothing=None)
    space_, later = space(script, "NFD", settings)
    assert text.folded(CLASSES[script][3]) not in space_.extended([later]).unknown_words(later.name)
    part = space_.coverage[0]["parts"][0]
    assert part["known"] == 1
    assert part["tokens"] - len(part["missing"]) > 0


@pytest.mark.parametrize("script", CLASSES)
@pytest.mark.parametrize("source", ["word2vec", "fasttext"])
def test_vectors_trained_on_one_script_know_a_later_class(script: str, source: str) -> None:
    space_, later = space(script, "NFD", Classes(source=source, text="descriptions", dimensions=8))
    shared = CLASSES[script][3]
    assert not {shared, *text.grams(shared)} & set(space_.extended([later]).unknown_words(later.name))


def test_the_longest_known_words_of_a_run_are_taken_and_the_rest_is_one_unknown_word() -> None:
    table = WordTable(["大", "大熊", "大熊猫", "猫", "竹子"], np.eye(5, dtype=np.float16))
    assert table.cut(["黑白大熊猫吃竹子啊", "bear"]) == ["黑白", "大熊猫", "吃", "竹子", "啊", "bear"]
    assert table.cut(["茶"]) == ["茶"]
    vector, missing = table.find_name("黑熊大熊猫")
    assert missing == ["黑熊"]
    np.testing.assert_array_equal(vector, np.eye(5)[2])


def test_words_beyond_the_most_frequent_are_found_within_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ayeaye.class_vectors import words

    monkeypatch.setattr(words, "KEPT", 1)
    path = tmp_path / "vectors.txt"
    path.write_text("的 1 0\n熊猫 0 1\n竹子 1 1\n", encoding="utf-8")
    names = pd.DataFrame({"name": ["大熊猫", "竹子"], "role": "seen", "description": ""})
    built = build(ClassTable(names), Classes(source="glove", vectors={"glove": str(path)}), Path)
    assert built.encoder.parts[0].vocabulary == ["的", "熊猫", "竹子"]


def test_vowel_points_and_letters_of_another_width_are_the_same_word() -> None:
    table = TermTable.fit(["قِطّة ﻗﻂ", "חָתוּל", "ﾈｺ Ｘ", "می\u200cخواهم"])
    for same in ("قطة", "قط", "חתול", "ネコ", "x", "میخواهم"):
        assert table.vector(same)[1] == []


def test_a_clause_that_shares_no_character_is_not_known(tmp_path: Path) -> None:
    space_, _ = space("Chinese", "NFC", Classes(source="tfidf", text="descriptions"))
    with pytest.raises(UnknownWords):
        space_.extended([NewClass("鳄鱼", "牙齿锋利")])


def test_soft_hyphens_do_not_part_a_word_and_spaces_of_no_width_do() -> None:
    assert text.words("straw\u00adberry \u2067bear\u2069 ឆ្មា\u200bខ្មៅ") == [
        "strawberry",
        "bear",
        "ឆ្មា",
        "ខ្មៅ",
    ]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7up C-130 snake_case", ["7up", "C", "130", "snake", "case"]),
        ("don't the bear's rock’n’roll dogs'", ["don't", "the", "bear", "rock'n'roll", "dogs"]),
        ("3.5 U.S.A. a/b x² 5™ ﬁne", ["3", "5", "U", "S", "A", "a", "b", "x²", "5", "fine"]),
    ],
)
def test_english_is_cut_as_it_was(said: str, expected: list[str]) -> None:
    assert text.words(said) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("СерыйВолк", ["Серый", "Волк"]),
        ("A\u0308ppleRo\u0308d", ["Äpple", "Röd"]),
        ("大熊猫_黑", ["大熊猫", "黑"]),
    ],
)
def test_names_are_split_at_humps_of_any_script(name: str, expected: list[str]) -> None:
    assert text.name_words(name) == expected


def test_training_on_runs_without_spaces_takes_their_characters() -> None:
    table = train([text.grams("大熊猫吃竹子"), text.grams("斑马吃草")], "word2vec", 4, seed=0)
    assert {"大", "熊猫", "吃"} <= set(table.words)
    assert table.cut(["熊猫吃草"]) == ["熊猫", "吃草"]


def test_a_file_of_vectors_keeps_its_words_composed(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("ba\u0308r 1 0\nbär 0 1\n고양이 1 1\n", encoding="utf-8")
    assert read(path).words == ["bär", "고양이"]


def test_published_english_is_cut_as_by_letters_and_apostrophes(shared_data: Path) -> None:
    said = (shared_data / "grocery/classes.csv").read_text(encoding="utf-8")
    plain = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", said)
    assert text.words(said) == [re.sub(r"'s$", "", word.replace("’", "'")) for word in plain]


def test_ligatures_and_typographic_apostrophes_make_no_other_words() -> None:
    assert text.words("a ﬂat ﬁsh of l’océan") == ["a", "flat", "fish", "of", "l'océan"]
