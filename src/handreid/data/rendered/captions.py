"""Captions of photos: they state only what is visible in the photo."""

import numpy as np

from handreid.data.rendered.anatomy import DIGITS, Aspect, Person
from handreid.data.rendered.scene import Backing, Scene
from handreid.data.rendered.skin_marks import PALM, Surface

PLACES: dict[Backing, tuple[str, ...]] = {
    "white": ("on a white background", "against white"),
    "paper": ("on a sheet of paper", "on pale paper"),
    "gradient": ("against a plain grey backdrop", "in front of a grey background"),
    "wood": ("on a wooden table", "on wood"),
    "cloth": ("on a piece of cloth", "on fabric"),
    "stone": ("on a stone surface", "on grey stone"),
    "clutter": ("on a cluttered desk", "among coloured papers"),
}
OPENINGS = ("a photo of {}", "a picture of {}", "a close-up of {}", "{}", "a snapshot of {}", "an image showing {}")
NUMBERS = ("no", "one", "two", "three")


def caption(rng: np.random.Generator, who: Person, marks: Surface, scene: Scene) -> str:
    subject = _subject(rng, who, scene)
    facts = [f"{who.skin} skin", *_nails(who, scene), *_marks(marks, scene), *_worn(scene), scene.pose.words]
    phrases = [f for f in facts if rng.uniform() < 0.75]
    rng.shuffle(phrases)
    if rng.uniform() < 0.7:
        backing = PLACES[scene.background.kind]
        phrases.append(backing[int(rng.integers(len(backing)))])
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    return ", ".join([opening.format(subject), *phrases])


def _subject(rng: np.random.Generator, who: Person, scene: Scene) -> str:
    side = scene.side
    if scene.aspect == "dorsal":
        forms = (f"the back of a {side} hand", f"a {side} hand seen from the back", f"the dorsal side of a {side} hand")
    else:
        forms = (f"the palm of a {side} hand", f"a {side} hand with the palm up", f"the palmar side of a {side} hand")
    age = "an older person" if who.age >= 60 else "a young person" if who.age < 30 else "an adult"
    owner = f" of {age}" if rng.uniform() < 0.25 else ""
    return forms[int(rng.integers(len(forms)))] + owner


def _nails(who: Person, scene: Scene) -> list[str]:
    if scene.aspect == "palmar":
        return []
    if scene.worn.polish is None:
        return [f"{who.nails} nails"]
    return [f"{who.nails} nails painted {scene.worn.polish}"]


def _marks(marks: Surface, scene: Scene) -> list[str]:
    facts = []
    if marks.scar and _in_picture(scene, marks.scar.part, marks.scar.start):
        facts.append(f"a scar {scar_place(marks, scene.aspect)}")
    moles = sum(_in_picture(scene, mole.part, mole.centre) for mole in marks.moles)
    if moles:
        facts.append(
            "one mole" if moles == 1 else f"{NUMBERS[moles]} moles" if moles < len(NUMBERS) else "several moles"
        )
    return facts


def scar_place(marks: Surface, aspect: Aspect) -> str | None:
    """Where the scar is, in words; None if there is no scar."""
    if marks.scar is None:
        return None
    part, (x, y) = marks.scar.part, marks.scar.start
    if part != PALM:
        return f"on the {DIGITS[part]}"
    if y < 2.2:
        return "near the wrist"
    if x < -1.8 and y < 6.5:
        return "near the thumb"
    return "on the back of the hand" if aspect == "dorsal" else "on the palm"


def _in_picture(scene: Scene, part: int, point: tuple[float, float]) -> bool:
    x, y = scene.framing.place(point if part == PALM else scene.limbs[part].place(*point))
    return 0 < x < 1 and 0 < y < 1


def _worn(scene: Scene) -> list[str]:
    worn = scene.worn
    return [
        *([f"a {worn.ring} ring"] if worn.ring else []),
        *([f"a {worn.sleeve} sleeve"] if worn.sleeve else []),
    ]
