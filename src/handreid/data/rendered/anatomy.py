"""The shape of a person's two hands.

All lengths are centimetres in the hand's own frame, the same for both sides and both aspects: the wrist is the origin,
y points to the middle finger, x from the thumb (negative) to the little finger. A picture of the back of a right hand
shows this frame as it is, its palm shows it mirrored, and a left hand the other way round: so both aspects of a hand
share their outline, and left and right hands are each other's mirror image up to `ASYMMETRY`.

Mean bone lengths are those of adult hands (Buryanov and Kotiuk 2010, "Proportions of hand segments").
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Side = Literal["left", "right"]
Aspect = Literal["dorsal", "palmar"]
Point = tuple[float, float]

DIGITS = ("thumb", "index finger", "middle finger", "ring finger", "little finger")
KNUCKLES: tuple[Point, ...] = ((-4.6, 5.6), (-2.75, 8.9), (-0.85, 9.3), (1.05, 8.95), (2.8, 8.05))
PHALANGES = ((3.3, 2.75), (4.1, 2.35, 1.95), (4.55, 2.75, 2.1), (4.2, 2.65, 2.1), (3.35, 1.9, 1.9))
RADII = (1.0, 0.88, 0.92, 0.86, 0.76)  # half the width at the first joint after the knuckle
ASYMMETRY = 0.012
SKIN_WORDS = ("very fair", "fair", "medium", "brown", "dark", "very dark")
NAIL_WORDS = ("short", "medium", "long")


@dataclass(frozen=True)
class Nail:
    """Width is a share of the finger's; length and free edge are cm; squareness is a superellipse's exponent."""

    width: float
    length: float
    free_edge: float
    squareness: float
    moon: float


@dataclass(frozen=True)
class Digit:
    base: Point
    phalanges: tuple[float, ...]
    radii: tuple[float, ...]  # half widths at the knuckle, at each further joint, and at the tip
    waist: float  # how much slimmer the shafts are than the joints, as a share
    bow: float  # sideways curvature, cm of offset at the tip
    nail: Nail

    @property
    def joints(self) -> tuple[float, ...]:
        """Where the joints after the knuckle lie, in cm along the digit; the last is the tip."""
        return tuple(float(v) for v in np.cumsum(self.phalanges))


@dataclass(frozen=True)
class Hand:
    side: Side
    digits: tuple[Digit, ...]  # thumb first
    breadth: float  # of the palm, against the mean
    thumb_root: Point
    heel: float  # fullness of the two pads at the heel of the palm
    wrist: float  # half its width
    web: float  # how far the skin between the fingers reaches, cm past the knuckles


@dataclass(frozen=True)
class Person:
    subject: str
    tone: float  # 0 is the lightest skin, 1 the darkest
    warmth: float  # -1 rosy to 1 olive
    age: int
    hairiness: float
    hands: dict[Side, Hand]

    @property
    def skin(self) -> str:
        return SKIN_WORDS[min(int(self.tone * len(SKIN_WORDS)), len(SKIN_WORDS) - 1)]

    @property
    def nails(self) -> str:
        edge = self.hands["right"].digits[2].nail.free_edge
        return NAIL_WORDS[int(edge > 0.12) + int(edge > 0.3)]


def stream(seed: int, *key: int) -> np.random.Generator:
    """A separate generator for each key, so that no draw depends on other draws or their order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def person(seed: int, identity: int) -> Person:
    rng = stream(seed, identity, 0)
    tone = float(rng.uniform())
    right = _hand(rng)
    return Person(
        subject=f"p{identity:05d}",
        tone=tone,
        warmth=float(rng.uniform(-1, 1)),
        age=int(rng.integers(18, 80)),
        hairiness=float(max(rng.normal(0.1, 0.5), 0.0)),
        hands={"right": right, "left": _mirrored(right, rng)},
    )


def _hand(rng: np.random.Generator) -> Hand:
    size, breadth = rng.normal(1.0, 0.05), rng.normal(1.0, 0.06)
    stature = float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.2))  # long or short fingers for the palm
    thickness = float(np.clip(rng.normal(1.0, 0.12), 0.76, 1.3))
    lengths = rng.normal(1.0, 0.045, 5)
    lengths[1] = lengths[3] * rng.normal(1.0, 0.045)  # the ratio of second to fourth digit varies by itself
    taper, bulge, waist = rng.normal(0.82, 0.06), rng.normal(1.0, 0.05), float(rng.uniform(0.0, 0.13))
    nail = Nail(
        width=float(rng.uniform(0.6, 0.82)),
        length=float(rng.uniform(0.85, 1.35)),
        free_edge=float(rng.choice([0.04, 0.2, 0.42], p=[0.55, 0.3, 0.15]) + rng.uniform(0, 0.07)),
        squareness=float(rng.uniform(2.0, 4.5)),
        moon=float(rng.uniform(0, 1)),
    )
    digits = []
    for i in range(5):
        bones = np.array(PHALANGES[i]) * size * stature * lengths[i] * rng.normal(1.0, 0.03, len(PHALANGES[i]))
        radius = RADII[i] * size * thickness * rng.normal(1.0, 0.03)
        x, y = KNUCKLES[i]
        inner = () if i == 0 else (radius * (0.52 + 0.48 * taper),)
        digits.append(
            Digit(
                base=(float(x * size * breadth), float((y + rng.normal(0, 0.12)) * size)),
                phalanges=tuple(float(b) for b in bones),
                radii=tuple(float(r) for r in (radius * 1.05, radius * bulge, *inner, radius * taper)),
                waist=waist,
                bow=float(rng.normal((0.1, 0.12, 0.0, -0.1, -0.22)[i], 0.1)),
                nail=replace(nail, length=nail.length * (1.2, 1.0, 1.03, 0.97, 0.8)[i] * float(rng.normal(1, 0.04))),
            )
        )
    return Hand(
        side="right",
        digits=tuple(digits),
        breadth=float(breadth * size),
        thumb_root=(float(-2.1 * size * breadth), float(2.0 * size)),
        heel=float(rng.uniform(0.7, 1.3)),
        wrist=float(rng.normal(2.75, 0.2) * size * (0.4 + 0.6 * thickness)),
        web=float(rng.normal(0.95, 0.16) * size),
    )


def _mirrored(hand: Hand, rng: np.random.Generator) -> Hand:
    def nearly(value: float, share: float = ASYMMETRY) -> float:
        return float(value * rng.normal(1.0, share))

    digits = tuple(
        replace(
            digit,
            base=(nearly(digit.base[0]), nearly(digit.base[1])),
            phalanges=tuple(nearly(b) for b in digit.phalanges),
            radii=tuple(nearly(r) for r in digit.radii),
            bow=digit.bow + float(rng.normal(0, 0.04)),
            nail=replace(digit.nail, width=nearly(digit.nail.width), length=nearly(digit.nail.length)),
        )
        for digit in hand.digits
    )
    return replace(hand, side="left", digits=digits, wrist=nearly(hand.wrist), web=nearly(hand.web, 0.05))
