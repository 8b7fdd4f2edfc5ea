"""Facts from columns: from those that captions have wordings for, as in 11k Hands and rendered hands or of countable
things that a hand has or wears, and from any other. Gender and age are in `owner`.
"""

import re
from collections.abc import Callable

from handreid.data.captioning.english import counted, is_plural, plural, singular, with_article
from handreid.data.captioning.facts import Fact, Slot
from handreid.data.captioning.values import Value, bare, lower_first, says_none, value_words

_TONES = ("very fair", "fair", "very light", "light", "pale", "olive", "tan", "tanned", "brown", "dark", "very dark")
_WORN = ("ring", "watch", "bracelet", "sleeve", "glove", "bandage", "plaster", "wristband")
_ON_SKIN = ("scar", "tattoo", "mole", "birthmark", "freckle", "wart", "burn", "wound", "cut", "callus")
_WHERE = ("on ", "near ", "at ", "in ", "under ", "above ", "below ", "between ", "across ")
PLACES: dict[str, tuple[str, ...]] = {
    "white": ("on a white background", "against a white background", "against white"),
    "paper": ("on a sheet of paper", "on pale paper"),
    "gradient": ("against a plain grey backdrop", "in front of a grey background"),
    "wood": ("on a wooden table", "on wood"),
    "cloth": ("on a piece of cloth", "on fabric"),
    "stone": ("on a stone surface", "on grey stone"),
    "clutter": ("on a cluttered desk", "among coloured papers"),
}


def known_facts(column: str, value: Value) -> list[Fact]:
    """What a column, by its name in words, states with a value; empty if captions have no wording for it."""
    name = column.removeprefix("has ").removeprefix("wears ")
    if name in ("accessories", "accessory"):
        return _accessories(value)
    fact = _known_fact(name, value)
    return [fact] if fact else []


def _known_fact(name: str, value: Value) -> Fact | None:
    wording = _WORDINGS.get(name.replace(" ", ""))
    if wording is not None:
        return wording(value)
    noun = singular(name)
    if noun in (*_WORN, *_ON_SKIN):
        return _countable("wears" if noun in _WORN else "has", noun, value, several=is_plural(name))
    return None


def skin(tone: str) -> Fact:
    if tone == "medium":
        return Fact("has", ("a medium skin tone", "medium-toned skin", "skin of a medium tone"))
    forms = (f"{tone} skin", f"{with_article(tone)} skin tone")
    return Fact("has", forms, (f"{tone}-skinned",) if tone in _TONES else ())


def polish(colour: str) -> Fact:
    return Fact("has", (f"nails painted {colour}", f"{colour} nail polish", f"{colour}-painted nails"))


def nails(length: str) -> Fact:
    if length == "medium":
        return Fact("has", ("nails of medium length", "medium-length nails"))
    return Fact("has", (f"{length} nails", f"{length} fingernails"))


def background(kind: str) -> Fact:
    other = (f"against {with_article(kind)} background", f"in front of {with_article(kind)} background")
    return Fact("setting", PLACES.get(kind, other))


def ring(kind: str | None, finger: str | None) -> Fact:
    """A ring, of a metal and on a finger where these are known: `a gold ring on the index finger`."""
    made = with_article(f"{kind} ring" if kind else "ring")
    if finger is None:
        return Fact("wears", (made,))
    where = finger if finger.endswith(("finger", "thumb")) else f"{finger} finger"
    return Fact("wears", (f"{made} on the {where}", f"{made} around the {where}"))


def _skin(value: Value) -> Fact | None:
    if not isinstance(value, str):
        return None
    return skin(bare(value, "skin tone", "skin", "tone"))


def _polish(value: Value) -> Fact | None:
    if says_none(value):
        return Fact("has", ("no nail polish", "unpainted nails", "bare nails"))
    if value is True:
        return Fact("has", ("nail polish", "painted nails", "polished nails", "polish on the nails"))
    return polish(bare(value, "nail polish", "polish", "nails")) if isinstance(value, str) else None


def _nails(value: Value) -> Fact | None:
    return nails(bare(value, "fingernails", "nails")) if isinstance(value, str) and not says_none(value) else None


def _accessories(value: Value) -> list[Fact]:
    if says_none(value):
        return [Fact("wears", ("no accessories", "no accessories of any kind"))]
    if value is True:
        return [Fact("wears", ("accessories", "at least one accessory"))]
    if not isinstance(value, str):
        return []
    items = [bare(item) for item in re.split(r"\s*[,;+/]\s*|\s+and\s+", value) if item]
    return [Fact("wears", (item if is_plural(item) else with_article(item),)) for item in items]


def _irregularities(value: Value) -> Fact | None:
    if says_none(value):
        return Fact("has", ("no irregularities", "no unusual features"))
    if value is True:
        return Fact("has", ("irregularities", "unusual features", "at least one irregularity"))
    return None


def _background(value: Value) -> Fact | None:
    return background(bare(value, "background")) if isinstance(value, str) else None


def _pose(value: Value) -> Fact | None:
    if not (isinstance(value, str) and "finger" in value.lower()):
        return None
    return Fact("pose", (lower_first(value),))


def _ring_finger(value: Value) -> Fact | None:
    if says_none(value):
        return _countable("wears", "ring", value, several=False)
    return ring(None, bare(value)) if isinstance(value, str) else None


def _countable(slot: Slot, noun: str, value: Value, *, several: bool) -> Fact | None:
    """`no rings`, `two moles`, `a scar on the palm`, `a blue sleeve`."""
    if says_none(value):
        return Fact(slot, (f"no {plural(noun)}",))
    if value is True:
        return Fact(slot, (f"at least one {noun}",) if several else (with_article(noun),))
    if isinstance(value, str):
        text = bare(value, noun, plural(noun))
        if text in (noun, plural(noun)):
            return Fact(slot, (plural(noun) if several else with_article(noun),))
        if text.startswith(_WHERE):
            return Fact(slot, (f"{plural(noun) if several else with_article(noun)} {text}",))
        return Fact(slot, (f"{text} {plural(noun)}" if several else with_article(f"{text} {noun}"),))
    whole = isinstance(value, int) and value > 0
    return Fact(slot, (counted(int(value), noun),)) if whole else None


_WORDINGS: dict[str, Callable[[Value], Fact | None]] = {
    **dict.fromkeys(("skin", "skincolor", "skincolour", "skintone"), _skin),
    **dict.fromkeys(("nailpolish", "polish"), _polish),
    **dict.fromkeys(("nails", "naillength"), _nails),
    **dict.fromkeys(("irregularities", "irregularity"), _irregularities),
    "background": _background,
    "pose": _pose,
    "ringfinger": _ring_finger,
}


def other_fact(column: str, value: Value) -> Fact:
    """Any other column, by its name in words: `lighting: dim`, also as a sentence."""
    label = f"{column}: {value_words(value)}"
    if isinstance(value, bool):
        label = label.removeprefix("is ").removeprefix("has ")
        return Fact("remark", (label, f"{label}."))
    last, several = is_plural(column), any(map(is_plural, column.split()))
    if several and not last:  # `rings worn` are, `glass type` is
        return Fact("remark", (label, f"{label}."))
    return Fact(
        "remark", (label, f"{label}.", f"the {column} {'are' if last else 'is'} recorded as {value_words(value)}.")
    )
