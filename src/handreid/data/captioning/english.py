"""Articles, lists, numbers and names of columns in English."""

import re
from collections.abc import Sequence

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AN_BY_NAME = frozenset("AEFHILMNORSX")  # letters whose names begin with a vowel, for abbreviations: an LED
_LIKE_YOU = re.compile(r"(eu|ewe|once\b|one\b|us[aeiu]|ut[ei]|uni(?![dmn]))")
_SILENT_H = re.compile(r"(hour|honest|honou?r|heir)")
_ABBREVIATION = 4  # capitals in a row that are read letter by letter


def with_article(phrase: str) -> str:
    """`an 18-year-old woman`, `a ring`, `an LED light`."""
    return f"{'an' if _takes_an(phrase) else 'a'} {phrase}"


def _takes_an(phrase: str) -> bool:
    if number := re.match(r"\d+", phrase):
        return number[0].startswith("8") or number[0] in ("11", "18")
    word = re.split(r"\W", phrase, maxsplit=1)[0]
    if word.isupper() and len(word) <= _ABBREVIATION:
        return word[0] in _AN_BY_NAME
    lower = word.lower()
    if _SILENT_H.match(lower):
        return True
    return lower[:1] in tuple("aeiou") and not _LIKE_YOU.match(lower)


def listed(items: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def counted(number: int, noun: str) -> str:
    """`no moles`, `one mole`, `12 moles`."""
    words = _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
    return f"{words} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(s|x|z|ch|sh)$", noun) else f"{noun}s"


def singular(noun: str) -> str:
    """The singular of a plural in -s; any other word as it is."""
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if re.search(r"(ss|x|z|ch|sh)es$", noun):
        return noun[:-2]
    return noun[:-1] if is_plural(noun) else noun


def is_plural(noun: str) -> bool:
    return re.search(r"[^sui]s$", noun) is not None


def sentence_case(text: str) -> str:
    """With a capital at the beginning."""
    return text[:1].upper() + text[1:]


def column_words(column: str) -> str:
    """The name of a column as words: `nail length` for `nail_length` and `nailLength`."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column)
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in re.split(r"[\W_]+", apart))
