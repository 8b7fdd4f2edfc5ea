"""Captions: several true wordings in good English, each within CLIP's 77 tokens, and which of them is drawn."""

import itertools
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from open_clip import SimpleTokenizer

from handreid.data.captioning.english import column_words, with_article
from handreid.data.captioning.length import _ONE_TOKEN, LONGEST
from handreid.data.captioning.manifest import add_captions, caption_notes
from handreid.data.captions import draw, join_wordings, wordings
from handreid.data.manifest import Manifest
from handreid.data.prompt_text import fill_templates
from handreid.errors import ManifestError

TOKENIZER = SimpleTokenizer()
HANDS11K = {
    "aspect": ("dorsal", "palmar", None),
    "side": ("left", "right", None),
    "age": (8, 18, 21, 80, None),
    "gender": ("female", "male", None),
    "skin_color": ("very fair", "medium", "dark", None),
    "accessories": (0, 1, None),
    "nailPolish": (0, 1, None),
    "irregularities": (0, 1, None),
}
WRONG = re.compile(
    r"  | [,.;:)]|\(\s|,,|\.\.|\bno no\b|without no|with with| with [^,.]* wearing|None|nan|[{}|]"
    r"|\b[Aa] (?:[aeio]|8\d?-|11-|18-)|\b[Aa]n (?!8|11|18)[^aeiou]"
)


def manifest(**columns: object) -> Manifest:
    height = max(len(list(values)) for values in columns.values())
    names = {"path": [f"{row:03}.jpg" for row in range(height)], "subject": ["anna"] * height}
    return Manifest(pl.DataFrame({**names, **columns}), Path())


def said(photos: Manifest, *columns: str, **options: object) -> list[tuple[str, ...]]:
    return wordings(add_captions(photos, columns, **options))


def test_combinations_of_11k_hands_are_told_in_good_sentences_within_clips_length():
    rows = list(itertools.product(*HANDS11K.values()))[::29]  # of 14,580
    photos = manifest(**{name: [row[n] for row in rows] for n, name in enumerate(HANDS11K)})
    for row, texts in zip(rows, said(photos, *HANDS11K, wordings=2), strict=True):
        assert len(texts) == (2 if any(value is not None for value in row) else 0)
        for text in texts:
            assert text[0].isupper()
            assert text.endswith(".")
            assert not WRONG.search(text), text
            assert len(TOKENIZER.encode(text)) <= LONGEST
            told(text, **dict(zip(HANDS11K, row, strict=True)))


def told(
    text: str, aspect: object, side: object, age: int | None, gender: object, skin_color: object, **flags: object
) -> None:
    """Everything that is known is in the text, and nothing else."""
    assert bool(re.search(r"back|dorsal", text)) == (aspect == "dorsal"), text
    assert bool(re.search(r"palm", text)) == (aspect == "palmar"), text
    assert {word for word in ("left", "right") if f"{word} hand" in text} == ({side} - {None}), text
    assert bool(re.search(r"\b(female|woman|girl|her)\b", text)) == (gender == "female"), text
    assert bool(re.search(r"\b(male|man|boy|his)\b", text)) == (gender == "male"), text
    assert bool(re.search(r"aged|-year-old|in (her|his|their) [a-z]+ties", text)) == (age is not None), text
    assert bool(re.search("girl|boy|child", text)) == (age is not None and age < 18), text
    assert ("skin" in text) == (skin_color is not None), text
    assert skin_color is None or str(skin_color) in text
    for name, words in (
        ("accessories", "accessor"),
        ("nailPolish", r"nails|polish"),
        ("irregularities", "irreg|unusual"),
    ):
        assert bool(re.search(words, text)) == (flags[name] is not None), text
        lacks = re.findall(r"without ([^.]*?)(?:,? wearing|\.)|\bno (\w+ ?\w*)|((?:unpainted|bare) nails)", text)
        assert bool(re.search(words, str(lacks))) == (flags[name] == 0), text


def test_gender_and_age_are_told_only_if_named():
    photos = manifest(side=["left"] * 40, gender=["female"] * 40, age=[21] * 40)
    for texts in said(photos, "side"):
        assert not re.search("woman|female|21|twenties|person", " ".join(texts))
    assert {text for texts in said(photos, "age") for text in texts if "woman" in text} == set()
    for texts in said(photos, "gender"):
        assert all("female" in text and "woman" not in text for text in texts)  # a girl's hand is female too


def test_the_same_seed_gives_the_same_captions_in_any_order_of_the_rows():
    photos = manifest(side=["left", "right"] * 5, skin_color=["dark"] * 10)
    table = add_captions(photos, ["side", "skin_color"], wordings=5).table
    turned = Manifest(photos.table.reverse(), Path())
    assert add_captions(turned, ["side", "skin_color"], wordings=5).table["caption"].reverse().equals(table["caption"])
    other = add_captions(photos, ["side", "skin_color"], wordings=5, seed=1).table["caption"]
    assert (other == table["caption"]).sum() == 0
    frames = {re.sub("left|right", "side", texts[0]) for texts in said(photos, "side", "skin_color")}
    assert len(frames) > 5


def test_other_columns_are_told_whatever_they_hold():
    photos = manifest(
        lightingType=["dim", "LED", "n/a"],
        finger_count=[5, 4, None],
        temperature=[22.5, 21.0, None],
        is_married=[True, False, None],
        tattoo=["yes", "no", "?"],
        scars=[0, 3, None],
        ring=["gold", "none", None],
        ring_finger=["index", "none", None],
        accessories=["a ring and Watch", "none", None],
        bracelet=["A blue bracelet", "no bracelet", None],
    )
    for column, words in {
        "lighting_type": (r"[Ll]ighting type: dim|The lighting type is recorded as dim", "LED"),
        "finger_count": ("[Ff]inger count(:| is recorded as) 5", "4"),
        "temperature": (r"22\.5", r"21\b(?!\.0)"),
        "is_married": ("[Mm]arried: yes", "[Mm]arried: no"),
        "tattoo": ("a tattoo", "(no|without) tattoos"),
        "scars": ("(no|without) scars", "three scars"),
        "ring,ring_finger": ("a gold ring (on|around) the index finger", "(no|without) rings"),
        "bracelet": ("a blue bracelet(?! brac)", "(no|without) bracelets"),
        "accessories": ("a (ring|watch)( and|,) .*a (watch|ring)", "(no|without) accessories"),
    }.items():
        first, second, third = said(photos, *column.split(","))
        assert all(re.search(words[0], text) for text in first), first
        assert all(re.search(words[1], text) for text in second), second
        assert third == ()
        assert not any(WRONG.search(text) for text in (*first, *second))


def test_templates_of_ones_own():
    photos = manifest(lighting=["dim", "LED"], tattoo=[1, 0], side=["left", "left"])
    options = {"lighting": ["under {value} light"], "tattoo": ["tattooed"]}
    first, second = said(photos, "side", templates=options)
    assert all(", under dim light" in text and ", tattooed" in text for text in first)
    assert all(", under LED light" in text and "tattoo" not in text for text in second)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["nail_polsih", "skin"], {}, r"no column 'nail_polsih' \(did you mean 'nail_polish'\?\) and 'skin'"),
        (["subject"], {}, "captions cannot say subject, which tells the person"),
        ([""], {}, "no column is named; captions can say .*nail_polish"),
        (["camera"], {}, "nothing is known of any photo in camera"),
        (["side"], {"templates": {"side": ["a {side} hand"]}}, "no other braces"),
        (["side"], {"templates": {"lihgt": ["in {value} light"]}}, r"no column 'lihgt' \(did you mean 'light'\?\)"),
        (["side"], {"wordings": 0}, "0 wordings"),
    ],
)
def test_what_is_wrong_is_said(columns: list[str], options: dict[str, object], message: str):
    photos = manifest(side=["left"], nail_polish=[1], light=["dim"])
    with pytest.raises(ManifestError, match=message):
        add_captions(photos, columns, **options)


def test_names_as_in_hand_info_csv():
    assert said(manifest(aspectOfHand=["dorsal left"]), "aspect_of_hand") == said(
        manifest(aspect=["dorsal"], side=["left"]), "aspectOfHand"
    )


def test_what_would_be_too_long_is_left_out():
    notes = " ".join(["kept in a drawer for many years"] * 12)
    photos = manifest(side=["left", None], skin_color=["fair", None], notes=[notes, notes])
    captioned = add_captions(photos, ["notes", "side", "skin_color"])
    texts, none = wordings(captioned)
    assert all("fair" in text and "drawer" not in text for text in texts)
    assert none == ()
    assert "captions: 2 photos of which not everything is said, to fit CLIP's 77 tokens" in caption_notes(captioned)
    filling = {f"c{number}": [f"value {number} of twelve"] for number in range(12)}
    first = said(manifest(**filling), *filling)[0][0]
    assert "value 0 of" in first
    assert "value 11 of" not in first
    brief = said(manifest(notes=[notes[:190]]), "notes")[0]
    assert all("drawer" in text for text in brief)
    assert {word: len(TOKENIZER.encode(word)) for word in _ONE_TOKEN} == dict.fromkeys(_ONE_TOKEN, 1)


def test_wordings_but_the_first_may_leave_facts_out():
    photos = manifest(side=["left"] * 60, skin_color=["fair"] * 60, scar=[1] * 60)
    texts = said(photos, "side", "skin_color", "scar", leave_out=0.5)
    assert all("fair" in first and "scar" in first for first, *_ in texts)
    rest = [text for _, *others in texts for text in others]
    assert 0.35 < np.mean(["fair" in text for text in rest]) < 0.65
    assert all("left hand" in text for text in rest)


class TestDrawing:
    def test_each_wording_is_drawn_once_before_one_is_drawn_again(self):
        choices = ("a", "b", "c")
        drawn = [[draw(choices, 0, epoch, row) for epoch in range(9)] for row in range(50)]
        assert all(sorted(row[turn : turn + 3]) == ["a", "b", "c"] for row in drawn for turn in (0, 3, 6))
        assert len({tuple(row) for row in drawn}) > 40
        assert drawn[0] == [draw(choices, 0, epoch, 0) for epoch in range(9)]
        assert drawn[0] != [draw(choices, 1, epoch, 0) for epoch in range(9)]
        assert [draw(choices, 7, epoch, "a/1.jpg") for epoch in range(6)] == list("abcbca")
        with pytest.raises(ValueError, match="no wording"):
            draw((), 0, 0, 0)

    def test_cells(self):
        photos = manifest(caption=["A hand. | A photo of a hand.", None, "one | ", "a|b"])
        assert wordings(photos) == [("A hand.", "A photo of a hand."), (), ("one",), ("a|b",)]
        assert wordings(photos, [2, 0]) == [("one",), ("A hand.", "A photo of a hand.")]
        assert join_wordings(["a | b", "c"]) == "a / b | c"

    def test_whoever_takes_one_takes_the_first(self):
        photos = manifest(caption=["a pale hand | the pale one", "a pale hand | pale", "dark | x"])
        filled, _ = fill_templates(["Look: {caption}."], photos.table, np.array([0, 0, 1]))
        assert filled == [["Look: a pale hand.", "Look: dark."]]


def test_english():
    articles = (
        "an 8-year-old, a 21-year-old, an 11th, an 80s, an olive, a unique, an uninjured, an LED, a brown, an hour"
    )
    assert ", ".join(with_article(phrase.split()[1]) for phrase in articles.split(", ")) == articles
    assert [column_words(name) for name in ("skinColor", "nail_length", "Is-LED")] == [
        "skin color",
        "nail length",
        "is LED",
    ]
