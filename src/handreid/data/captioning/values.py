"""What the cells of a column mean: text, numbers, yes or no, unknown."""

import re

import polars as pl

from handreid.data.captioning.english import column_words
from handreid.data.unlabelled import says_nothing

Value = bool | int | float | str

_NOTHING = ("", "-", "n/a", "na", "nan", "null", "not known")
_YES_NO = {"yes": True, "no": False, "true": True, "false": False, "y": True, "n": False}
_COUNTS = re.compile(r"\b(number|count|num|amount|total|age|years)\b")
_ABSENT = ("none", "no", "0", "absent", "without")


def meanings(column: pl.Series) -> list[Value | None]:
    """The value of each cell; None where it is empty or says that nothing is known.

    Whole numbers of which all are 0 or 1 are yes or no, unless the column's name says that it counts; so is text of
    which all is yes or no, true or false.
    """
    if column.dtype == pl.String:
        texts = [_tidy(value) for value in column]
        lower = {text.lower() for text in texts if text is not None}
        if lower and lower <= _YES_NO.keys():
            return [None if text is None else _YES_NO[text.lower()] for text in texts]
        return list(texts)
    values = column.to_list()
    if column.dtype.is_integer() and _is_flag(column):
        return [None if value is None else bool(value) for value in values]
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def says_none(value: Value) -> bool:
    """Whether a value means that there is none of what the column is about."""
    if isinstance(value, str):
        return value.lower() in _ABSENT or value.lower().startswith("no ")
    return value == 0


def value_words(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def lower_first(text: str) -> str:
    """`Fair` as `fair`; words with other capitals stay."""
    return text.lower() if text[1:] == text[1:].lower() else text


def bare(text: str, *nouns: str) -> str:
    """What describes one of the nouns, without it and an article: `gold` for `A gold ring`, and for `gold`."""
    plain = re.sub(r"^(an?|the) ", "", lower_first(text))
    return next((plain.removesuffix(f" {noun}") for noun in nouns if plain.endswith(f" {noun}")), plain)


def _is_flag(column: pl.Series) -> bool:
    return column.drop_nulls().is_in([0, 1]).all() and _COUNTS.search(column_words(column.name)) is None


def _tidy(text: str | None) -> str | None:
    plain = " ".join((text or "").replace("_", " ").split()).rstrip(". ")
    return None if plain.lower() in _NOTHING or says_nothing(plain) else plain
