"""Sentences from facts: several frames, each grammatical whichever facts there are.

* A photo of the back of a left hand with fair skin and a gold ring, fingers spread wide, on a wooden table.
* A picture of the palm of a woman's dark-skinned hand on wood. The hand has unpainted nails and no accessories.
* Against white: a right hand seen from the back with long nails, without scars or moles, wearing a blue sleeve.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handreid.data.captioning.chooser import Chooser
from handreid.data.captioning.english import listed, sentence_case, with_article
from handreid.data.captioning.facts import Fact

NAMES = ("a photo of {}", "a photograph of {}", "a picture of {}", "an image of {}", "{}", "{}")
OPENINGS = (*NAMES, "a photo showing {}", "this is {}", "this photo shows {}", "here is {}")
OF_VIEWS = ("{}", "{}", "this is {}", "here is {}")  # `a photo of a view of` says it twice
_VIEW = " view of "
# {} is the hand. The last form of an aspect would tell how the owner is seen in `the hand of a woman`.
VIEWS: dict[str | None, tuple[str, ...]] = {
    "dorsal": ("the back of {}", "the dorsal side of {}", "a dorsal view of {}", "{} seen from the back"),
    "palmar": ("the palm of {}", "the palmar side of {}", "a palmar view of {}", "{} seen from the palm side"),
    None: ("{}",),
}
_TRIES = 4  # for each wording, until one differs from those before
_NO = "no "  # how wordings begin that say that there is none
# shares of sentences that use such a wording if there is one
_ADJECTIVES, _POSSESSIVES, _BEFORE, _WEARING = 0.4, 0.6, 0.2, 0.7


def sentence(aspect: str | None, side: str | None, facts: Sequence[Fact], chooser: Chooser) -> str:
    """A caption that says all of these facts, in a frame, words and an order by `chooser`."""
    parts = _worded(facts, chooser)
    head = _head(aspect, side, parts, chooser)
    frames = (_in_one, _in_one, _with_commas, _in_two, *((_setting_first,) if parts.settings else ()))
    first = chooser.one(frames)(head, parts, chooser)
    labels = f" ({'; '.join(parts.labels)})" if parts.labels else ""
    return " ".join([f"{sentence_case(first)}{labels}.", *map(sentence_case, parts.sentences)])


def distinct(wording: Callable[[int], str], count: int) -> list[str]:
    """The first `count` different texts of `wording(0)`, `wording(1)` and so on; fewer if few are different."""
    texts: dict[str, None] = {}
    for number in range(_TRIES * count):
        texts[wording(number)] = None
        if len(texts) == count:
            break
    return list(texts)


@dataclass
class _Parts:
    """One wording of every fact, by where it stands."""

    adjectives: list[str] = field(default_factory=list)
    owner: str = ""
    possessive: str = ""
    has: list[str] = field(default_factory=list)
    wears: list[str] = field(default_factory=list)
    asides: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    @property
    def held(self) -> list[str]:
        """What the hand has or wears, what it lacks last."""
        return sorted([*self.has, *self.wears], key=_negative)

    @property
    def sorted_has(self) -> list[str]:
        return sorted(self.has, key=_negative)

    @property
    def wears_something(self) -> bool:
        """Whether all that it is said to wear is there."""
        return bool(self.wears) and not any(map(_negative, self.wears))


def _worded(facts: Sequence[Fact], chooser: Chooser) -> _Parts:
    parts = _Parts()
    for fact in chooser.shuffled(facts):
        form = chooser.one(fact.forms)
        if fact.adjectives and chooser.chance(_ADJECTIVES):
            parts.adjectives.append(chooser.one(fact.adjectives))
        elif fact.possessives and chooser.chance(_POSSESSIVES):
            parts.possessive = chooser.one(fact.possessives)
        elif fact.slot == "owner":
            parts.owner = form
        elif form.endswith("."):
            parts.sentences.append(form)
        else:
            lists = {"has": parts.has, "wears": parts.wears, "setting": parts.settings, "remark": parts.labels}
            lists.get(fact.slot, parts.asides).append(form)
    return parts


def _head(aspect: str | None, side: str | None, parts: _Parts, chooser: Chooser) -> str:
    """`the back of a woman's left hand`, `a fair-skinned dorsal left hand`."""
    before = aspect is not None and chooser.chance(_BEFORE)
    words = " ".join(filter(None, [*parts.adjectives, aspect if before else None, side, "hand"]))
    if parts.possessive:
        hand = f"{parts.possessive} {words}"
    else:
        hand = f"the {words} of {parts.owner}" if parts.owner else with_article(words)
    if before:
        return hand
    forms = VIEWS[aspect]
    return chooser.one(forms[:-1] if parts.owner and len(forms) > 1 else forms).format(hand)


def _in_one(head: str, parts: _Parts, chooser: Chooser) -> str:
    told = f"{_equipped(head, parts, chooser)}{_aside(parts)}"
    return _placed(_opened(told, chooser), parts, chooser, comma=told != head)


def _with_commas(head: str, parts: _Parts, chooser: Chooser) -> str:
    opening = "{}" if _VIEW in head else chooser.one(NAMES)
    worn = [f"wearing {listed(parts.wears)}"] if parts.wears_something else parts.wears
    return ", ".join([opening.format(head), *parts.sorted_has, *worn, *parts.asides, *parts.settings])


def _in_two(head: str, parts: _Parts, chooser: Chooser) -> str:
    told = f"{head}{_aside(parts)}"
    first = _placed(_opened(told, chooser), parts, chooser, comma=told != head)
    subject = chooser.one(("the hand", "this hand"))
    has = parts.sorted_has if parts.wears_something else parts.held
    clauses = [f"has {listed(has)}"] if has else []
    clauses += [f"wears {listed(parts.wears)}"] if parts.wears_something else []
    return ". ".join([first, *([sentence_case(f"{subject} {', and '.join(clauses)}")] if clauses else [])])


def _setting_first(head: str, parts: _Parts, chooser: Chooser) -> str:
    return f"{' '.join(parts.settings)}: {_equipped(head, parts, chooser)}{_aside(parts)}"


def _opened(told: str, chooser: Chooser) -> str:
    return chooser.one(OF_VIEWS if _VIEW in told else OPENINGS).format(told)


def _equipped(head: str, parts: _Parts, chooser: Chooser) -> str:
    """The hand with what it has, lacks and wears."""
    wearing = parts.wears_something and chooser.chance(_WEARING)
    held = parts.sorted_has if wearing else parts.held
    told = f"{head}{_having(held, chooser)}"
    if not wearing:
        return told
    return f"{told}{',' if held else ''} wearing {listed(parts.wears)}"


def _having(held: Sequence[str], chooser: Chooser) -> str:
    """` with fair skin and no rings`, ` with fair skin, without rings or nail polish`."""
    has, lacks = [form for form in held if not _negative(form)], [form for form in held if _negative(form)]
    apart = bool(lacks) and chooser.chance(0.5)
    if apart:
        missing = f" without {listed([form.removeprefix(_NO) for form in lacks], 'or')}"
        return f" with {listed(has)},{missing}" if has else missing
    return f" with {listed(held)}" if held else ""


def _aside(parts: _Parts) -> str:
    return "".join(f", {aside}" for aside in parts.asides)


def _placed(told: str, parts: _Parts, chooser: Chooser, *, comma: bool) -> str:
    """With where the hand is, after a comma if something stands between it and the hand."""
    if not parts.settings:
        return told
    photographed = "" if "photo" in told else chooser.one(("", "", " photographed"))
    return f"{told}{',' if comma else ''}{photographed} {' '.join(parts.settings)}"


def _negative(form: str) -> bool:
    return form.startswith(_NO)
