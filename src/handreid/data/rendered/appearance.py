"""What is visible on a rendered photo, as facts for its captions.

Only what is in the picture is stated: no nails on palms unless they are longer than the fingers, no mark that lies
outside. A person's age is not stated.
"""

from collections import Counter
from collections.abc import Iterable

from handreid.data.captioning.columns import background, nails, polish, ring, skin
from handreid.data.captioning.english import counted, listed, with_article
from handreid.data.captioning.facts import Fact
from handreid.data.rendered.anatomy import DIGITS, Aspect, Person, Point
from handreid.data.rendered.scene import CLOTHS, Background, Scene
from handreid.data.rendered.skin_marks import PALM, Spot, Stroke, Surface

# About a sixth of the people are beyond each of these limits, a fifth for hair.
LONG, SHORT = 1.1, 0.92  # length of the middle finger over that of the palm
SLIM, THICK = 0.087, 0.117  # half width of the fingers over their length, mean of four
VEINS, HAIR = 0.17, 0.55
PALE, RED = 0.1, 0.45  # blood in a scar
DIM = 0.88  # exposure below which a photo looks dark
FEW = 2  # places of moles that are named
POSES: dict[str, tuple[str, ...]] = {
    "fingers together": ("fingers together", "fingers held together", "the fingers closed"),
    "fingers wide apart": ("fingers wide apart", "fingers spread wide", "the fingers spread"),
    "relaxed fingers": ("relaxed fingers", "the fingers relaxed", "fingers slightly apart"),
}


def visible_facts(who: Person, marks: Surface, scene: Scene) -> list[Fact]:
    """What the photo shows beside aspect and side."""
    return [
        skin(who.skin),
        *_nails(who, scene),
        *_fingers(who),
        *_skin_of_the_back(who, marks, scene.aspect),
        *_scar(marks, scene),
        *_moles(marks, scene),
        *_worn(scene),
        Fact("pose", POSES[scene.pose.words]),
        _behind(scene.background),
        *_camera(scene),
    ]


def place(part: int, point: Point, aspect: Aspect) -> str:
    """Where on the hand a mark is: `on the index finger`, `near the wrist`."""
    if part != PALM:
        return f"on the {DIGITS[part]}"
    x, y = point
    if y < 2.2:
        return "near the wrist"
    if x < -1.8 and y < 6.5:
        return "near the thumb"
    if y > 7.2:
        return "near the knuckles" if aspect == "dorsal" else "below the fingers"
    if x > 2.0:
        return "near the little finger"
    return "on the back of the hand" if aspect == "dorsal" else "in the middle of the palm"


def _nails(who: Person, scene: Scene) -> list[Fact]:
    colour = scene.worn.polish
    if scene.aspect == "palmar":
        if who.nails != "long":
            return []
        return [
            nails("long") if colour is None else Fact("has", (f"long {colour} nails", f"long nails painted {colour}"))
        ]
    length = "medium-length" if who.nails == "medium" else who.nails
    if colour is None:
        return [Fact("has", (*nails(who.nails).forms, f"{length} unpainted nails"))]
    return [
        Fact("has", (f"{length} nails painted {colour}", f"{length} nails with {colour} polish", *polish(colour).forms))
    ]


def _fingers(who: Person) -> list[Fact]:
    hand = who.hands["right"]  # as `Person.nails`: a person's two hands are described alike
    fingers = hand.digits[1:]
    length = hand.digits[2].joints[-1] / hand.digits[2].base[1]
    width = sum(digit.radii[1] / digit.joints[-1] for digit in fingers) / len(fingers)
    words = [
        *(["long"] if length > LONG else ["short"] if length < SHORT else []),
        *(["slim"] if width < SLIM else ["thick"] if width > THICK else []),
    ]
    return [Fact("has", tuple(f"{sign.join(words)} fingers" for sign in (" ", " and ")))] if words else []


def _skin_of_the_back(who: Person, marks: Surface, aspect: Aspect) -> list[Fact]:
    if aspect == "palmar":
        return []
    veins = max((-stroke.blood for stroke in marks.strokes), default=0.0)
    return [
        *([Fact("has", ("visible veins", "prominent veins"))] if veins > VEINS else []),
        *([Fact("has", ("visible hair", "hair on the skin"), ("hairy",))] if who.hairiness > HAIR else []),
    ]


def _scar(marks: Surface, scene: Scene) -> list[Fact]:
    scar = marks.scar
    if scar is None or not _in_picture(scene, scar, scar.start):
        return []
    where = place(scar.part, scar.start, scene.aspect)
    look = "pale " if scar.blood < PALE else "reddish " if scar.blood > RED else ""
    return [Fact("has", (f"a scar {where}", f"a {look}scar {where}"))]


def _moles(marks: Surface, scene: Scene) -> list[Fact]:
    seen = [mole for mole in marks.moles if _in_picture(scene, mole, mole.centre)]
    if not seen:
        return []
    places = Counter(place(mole.part, mole.centre, scene.aspect) for mole in seen)
    total = counted(len(seen), "mole")
    if len(places) > FEW:
        return [Fact("has", (total,))]
    each = [
        f"{with_article('mole') if count == 1 else counted(count, 'mole')} {where}" for where, count in places.items()
    ]
    return [Fact("has", (total, f"{total} ({listed(list(places))})") if len(each) > 1 else (total, *each))]


def _in_picture(scene: Scene, mark: Spot | Stroke, point: Point) -> bool:
    x, y = scene.framing.place(point if mark.part == PALM else scene.limbs[mark.part].place(*point))
    return 0 < x < 1 and 0 < y < 1


def _worn(scene: Scene) -> Iterable[Fact]:
    worn = scene.worn
    if worn.ring:
        yield ring(worn.ring, DIGITS[worn.ring_digit])
    if worn.sleeve:
        sleeve = with_article(f"{worn.sleeve} sleeve")
        yield Fact("wears", (sleeve, f"{sleeve} at the wrist"))


def _behind(behind: Background) -> Fact:
    colour = next((name for name, shade in CLOTHS.items() if shade == behind.colours[0]), None)
    if behind.kind == "cloth" and colour:
        return Fact("setting", (f"on a piece of {colour} cloth", f"on {colour} cloth", f"on {colour} fabric"))
    return background(behind.kind)


def _camera(scene: Scene) -> Iterable[Fact]:
    if scene.light.exposure < DIM:
        yield Fact("setting", ("in dim light", "in poor light"))
    if scene.finish.motion[0]:
        yield Fact("pose", ("blurred by motion", "slightly blurred"))
