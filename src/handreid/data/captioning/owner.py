"""Gender and age: of whom the hand is. They are said only where their columns are named."""

import re

from handreid.data.captioning.english import with_article
from handreid.data.captioning.facts import Fact
from handreid.data.captioning.values import Value, lower_first

_GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
_GENDERS |= {"women": "female", "girl": "female", "men": "male", "boy": "male"}
_UNSAID = ("other", "others", "prefer not to say")
_NOUNS = {"female": ("girl", "woman"), "male": ("boy", "man"), None: ("child", "person")}
_THEIR = {"female": "her", "male": "his", None: "their"}
_DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
_DECADE = re.compile(r"\d0'?s|(early|mid|late)[ -].*|" + "|".join(_DECADES))
_OLDEST, _ADULT = 130, 18
_RANGE = re.compile(r"\d+\s*(-|\N{EN DASH}|to)\s*\d+|\d+\s*\+")


def owner(gender: Value | None, age: Value | None) -> list[Fact]:
    """`a woman aged 21` and the like; nothing where neither is known, or an age is impossible."""
    sex = _GENDERS.get(gender.lower()) if isinstance(gender, str) else None
    described = None
    if isinstance(gender, str) and sex is None and gender.lower() not in _UNSAID:
        described = lower_first(gender)
    if isinstance(age, str) and age.isdigit():
        age = int(age)
    if isinstance(age, int | float) and not isinstance(age, bool):
        return _of_years(sex, described, age) if 0 < age <= _OLDEST else owner(gender, None)
    person = " ".join(filter(None, [described or sex, "person"]))
    if isinstance(age, str) and _RANGE.fullmatch(age):
        return [Fact("owner", (f"{with_article(person)} aged {age}",))]
    if isinstance(age, str) and _DECADE.fullmatch(age):
        return [Fact("owner", (f"{with_article(person)} in {_THEIR[sex]} {age}",))]
    if isinstance(age, str):
        person = f"{lower_first(age)} {person}"
    elif described is None and sex is None:
        return []
    words = person.removesuffix(" person")
    return [Fact("owner", (with_article(person),), (words,), (f"{with_article(person)}'s",))]


def _of_years(sex: str | None, described: str | None, age: int | float) -> list[Fact]:
    child, adult = _NOUNS[sex]
    noun = " ".join(filter(None, [described, adult if age >= _ADULT else child]))
    years = f"{age:g}"
    forms = [f"{with_article(noun)} aged {years}"]
    if isinstance(age, float):
        return [Fact("owner", tuple(forms))]
    old = with_article(f"{years}-year-old {noun}")
    forms.append(old)
    decade = int(age) // 10 - 2
    if 0 <= decade < len(_DECADES):
        forms.append(f"{with_article(noun)} in {_THEIR[sex]} {_DECADES[decade]}")
    return [Fact("owner", tuple(forms), (), (f"{old}'s",))]
