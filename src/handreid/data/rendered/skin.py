"""The marks on a person's skin: creases, wrinkles, veins, palm lines, moles and scars.

Left and right share the plan of creases and veins with small differences; moles, scars and the finest lines are each
hand's own.
"""

import itertools
from dataclasses import replace

import numpy as np

from handreid.data.rendered.anatomy import Aspect, Hand, Person, Point, Side, stream
from handreid.data.rendered.skin_marks import PALM, Spot, Stroke, Surface


def surface(seed: int, identity: int, who: Person, side: Side, aspect: Aspect) -> Surface:
    hand, view = who.hands[side], int(aspect == "palmar")
    shared, individual = stream(seed, identity, 1, view), stream(seed, identity, 2, int(side == "left"), view)
    if aspect == "dorsal":
        strokes = [*_knuckle_wrinkles(shared, hand, who), *_veins(shared, who), *_tendons(shared, hand)]
        spots = _knuckles(shared, hand)
    else:
        strokes = [*_palm_lines(shared, hand), *_flexion_creases(shared, hand), *_minor_lines(individual)]
        spots = _pads(shared, hand)
    strokes = [_shifted(s, individual) for s in strokes]
    moles, scar = _moles(individual, hand, aspect), _scar(individual, hand, aspect)
    return Surface(tuple(strokes), tuple(spots), tuple(moles), scar)


def _shifted(stroke: Stroke, rng: np.random.Generator) -> Stroke:
    """The line as it is on one hand: slightly moved, slightly stronger or weaker."""
    dx, dy, ex, ey = rng.normal(0, 0.05 if stroke.part == PALM else 0.025, 4)
    gain = float(np.clip(rng.normal(1.0, 0.15), 0.5, 1.5))
    return replace(
        stroke,
        start=(stroke.start[0] + float(dx), stroke.start[1] + float(dy)),
        end=(stroke.end[0] + float(ex), stroke.end[1] + float(ey)),
        dark=stroke.dark * gain,
        relief=stroke.relief * gain,
    )


def _knuckle_wrinkles(rng: np.random.Generator, hand: Hand, who: Person) -> list[Stroke]:
    """Arcs around each finger joint, opening away from it like brackets."""
    strokes = []
    style = float(rng.uniform(0.6, 1.4)) * (0.75 + 0.008 * who.age)
    for part, digit in enumerate(hand.digits):
        for joint, (position, radius) in enumerate(zip(digit.joints[:-1], digit.radii[1:], strict=False)):
            base = joint == 0
            count = int(rng.integers(3, 6)) if base else int(rng.integers(1, 4))
            reach = (0.42 if base else 0.22) * float(rng.uniform(0.75, 1.2))
            for k in range(count):
                offset = (2 * (k + 0.5) / count - 1) * reach + float(rng.normal(0, 0.05))
                half = radius * float(rng.uniform(0.4, 0.8)) * (1 - 0.3 * abs(offset) / reach)
                tilt = float(rng.normal(0, 0.03))
                strokes.append(
                    Stroke(
                        part,
                        (-half, position + offset - tilt),
                        (half, position + offset + tilt),
                        width=0.045 + 0.035 * float(rng.uniform()),
                        bend=-0.22 * offset / reach * float(rng.uniform(0.4, 1.2)),
                        wave=float(rng.uniform(0, 0.02)),
                        phase=float(rng.uniform(0, 6.3)),
                        dark=style * float(rng.uniform(0.18, 0.45)),
                        relief=-0.02,
                    )
                )
    return strokes


def _veins(rng: np.random.Generator, who: Person) -> list[Stroke]:
    """Branches that gather from between the knuckles towards the wrist."""
    strength = float(rng.uniform(0.1, 1.0)) * (0.6 + 0.006 * who.age)
    strokes = []
    nodes = [(float(rng.normal(x, 0.4)), float(rng.normal(4.2, 0.7))) for x in (-1.6, 0.4, 2.3)]
    for x in (-1.8, 0.1, 1.95, 3.3):
        top = (float(rng.normal(x, 0.2)), float(rng.normal(8.3, 0.4)))
        node = nodes[int(rng.integers(3))] if rng.uniform() < 0.25 else min(nodes, key=lambda n: abs(n[0] - top[0]))
        strokes.append(_vein(rng, top, node, strength))
    strokes += [_vein(rng, node, (float(rng.normal(node[0] * 0.8, 0.5)), -2.5), strength) for node in nodes]
    if rng.uniform() < 0.7:
        strokes.append(_vein(rng, nodes[0], nodes[1], strength * 0.8))
    return strokes


def _vein(rng: np.random.Generator, start: Point, end: Point, strength: float) -> Stroke:
    return Stroke(
        PALM,
        start,
        end,
        width=float(rng.uniform(0.11, 0.19)),
        bend=float(rng.normal(0, 0.1)),
        skew=float(rng.normal(0, 0.15)),
        wave=float(rng.uniform(0, 0.02)),
        phase=float(rng.uniform(0, 6.3)),
        dark=0.16 * strength,
        relief=0.075 * strength,
        blood=-0.22 * strength,
    )


def _tendons(rng: np.random.Generator, hand: Hand) -> list[Stroke]:
    strength = float(rng.uniform(0.2, 1.0))
    return [
        Stroke(PALM, (0.25 * d.base[0], 2.0), d.base, 0.22, relief=0.07 * strength, bend=float(rng.normal(0, 0.02)))
        for d in hand.digits[1:]
    ]


def _knuckles(rng: np.random.Generator, hand: Hand) -> list[Spot]:
    """Bumps and darker, redder skin over the joints."""
    pigment, redness = float(rng.uniform(0.0, 0.07)), float(rng.uniform(0.05, 0.35))
    height = float(rng.uniform(0.06, 0.2))
    spots = []
    for part, digit in enumerate(hand.digits):
        if part:
            spots.append(Spot(PALM, digit.base, (0.6, 0.65), relief=height, blood=0.6 * redness, melanin=0.4 * pigment))
        position = digit.joints[0]
        radii = (0.7 * digit.radii[1], 0.5)
        spots.append(Spot(part, (0.0, position), radii, relief=0.06, melanin=pigment, blood=redness))
    for left, right in itertools.pairwise(hand.digits[1:]):
        middle = ((left.base[0] + right.base[0]) / 2, (left.base[1] + right.base[1]) / 2 + 0.1)
        spots.append(Spot(PALM, middle, (0.3, 0.8), relief=-0.6 * height))
    return spots


def _palm_lines(rng: np.random.Generator, hand: Hand) -> list[Stroke]:
    """Heart, head and life line, and the less certain fate and sun lines."""
    b = hand.breadth

    def about(x: float, y: float, spread: float = 0.28) -> Point:
        return float(rng.normal(x, spread)) * b, float(rng.normal(y, spread)) * b

    def line(start: Point, end: Point, bend: float, width: float, dark: float) -> Stroke:
        return Stroke(
            PALM,
            start,
            end,
            width=width * float(rng.uniform(0.8, 1.25)),
            bend=float(rng.normal(bend, 0.035)),
            skew=float(rng.normal(0, 0.12)),
            wave=float(rng.uniform(0, 0.012)),
            phase=float(rng.uniform(0, 6.3)),
            dark=dark * float(rng.uniform(0.65, 1.3)),
            relief=-0.05,
            blood=0.2,
        )

    fork = about(-3.75, 6.6, 0.18)  # where head and life line spring, joined in most hands
    head = fork if rng.uniform() < 0.7 else (fork[0], fork[1] + float(rng.uniform(0.25, 0.6)))
    simian = rng.uniform() < 0.04
    lines = [
        line(fork, about(-0.9, 0.7, 0.35), 0.27, 0.085, 0.8),
        line(head, about(2.6, 6.6) if simian else about(2.0, 4.4, 0.6), 0.09, 0.075, 0.75),
    ]
    if not simian:
        lines.append(line(about(4.1, 6.5, 0.2), about(-1.3, 8.2, 0.45), -0.16, 0.08, 0.75))
    if rng.uniform() < 0.6:
        lines.append(line(about(0.2, 1.4, 0.4), about(-0.4, 7.0, 0.6), 0.03, 0.06, 0.45))
    if rng.uniform() < 0.4:
        lines.append(line(about(1.5, 3.5, 0.5), about(1.3, 7.2, 0.4), 0.03, 0.05, 0.4))
    half = 0.8 * hand.wrist
    wrist = [line((-half, y), (half, y + float(rng.normal(0, 0.1))), 0.03, 0.06, 0.5) for y in (0.15, -0.35)]
    return lines + wrist


def _minor_lines(rng: np.random.Generator) -> list[Stroke]:
    """The fine net that differs even between a person's two hands."""
    strokes = []
    for _ in range(int(rng.integers(5, 13))):
        x, y = float(rng.uniform(-3, 3.4)), float(rng.uniform(1.5, 8))
        angle, length = float(rng.uniform(0, 3.14)), float(rng.uniform(0.8, 2.2))
        end = (x + length * float(np.cos(angle)), y + length * float(np.sin(angle)))
        dark = float(rng.uniform(0.12, 0.35))
        strokes.append(Stroke(PALM, (x, y), end, 0.045, bend=float(rng.normal(0, 0.1)), dark=dark, relief=-0.02))
    return strokes


def _flexion_creases(rng: np.random.Generator, hand: Hand) -> list[Stroke]:
    """Each finger folds at its base, in the middle (often doubly) and before the tip; the thumb at two places."""
    strokes = []
    style = float(rng.uniform(0.7, 1.25))
    for part, digit in enumerate(hand.digits):
        base = hand.web + 0.95 if part else 0.15
        places = [base, *digit.joints[:-1]]
        for k, position in enumerate(places):
            radius = digit.radii[min(k, len(digit.radii) - 1)]
            double = rng.uniform() < (0.6, 0.75, 0.25)[k]
            for offset in (-0.13, 0.13) if double else (0.0,):
                tilt, gap = float(rng.normal(0, 0.06)), offset * float(rng.uniform(0.7, 1.3))
                half = radius * float(rng.uniform(0.82, 0.98))
                strokes.append(
                    Stroke(
                        part,
                        (-half, position + gap - tilt),
                        (half, position + gap + tilt),
                        width=0.05 * float(rng.uniform(0.8, 1.3)),
                        bend=float(rng.normal(0, 0.05)),
                        dark=style * float(rng.uniform(0.4, 0.75)) * (0.75 if double else 1.0),
                        relief=-0.05,
                        blood=0.15,
                    )
                )
    return strokes


def _pads(rng: np.random.Generator, hand: Hand) -> list[Spot]:
    """The cushions of palm and fingers, redder where they bear on things."""
    red = float(rng.uniform(0.1, 0.5))
    b, full = hand.breadth, hand.heel
    spots = [
        Spot(PALM, (-2.5 * b, 4.0 * b), (1.3 * b, 2.1 * b), relief=0.5 * full, blood=0.4 * red),
        Spot(PALM, (2.6 * b, 3.6 * b), (1.1 * b, 2.2 * b), relief=0.35 * full, blood=0.7 * red),
        Spot(PALM, (0.3 * b, 5.2 * b), (1.1 * b, 1.6 * b), relief=-0.3 * full, blood=-0.3 * red),
    ]
    for left, right in itertools.pairwise(hand.digits[1:]):
        middle = ((left.base[0] + right.base[0]) / 2, (left.base[1] + right.base[1]) / 2)
        spots.append(Spot(PALM, middle, (0.55, 0.7), relief=0.13, blood=0.8 * red))
    for part, digit in enumerate(hand.digits):
        starts = (hand.web + 0.95 if part else 0.1, *digit.joints)
        for k, (low, high) in enumerate(itertools.pairwise(starts)):
            last = k == len(starts) - 2
            radii = (0.9 * digit.radii[k], 0.36 * (high - low))
            spots.append(Spot(part, (0.0, (low + high) / 2), radii, relief=0.1, blood=red * (1.0 if last else 0.3)))
    return spots


def _moles(rng: np.random.Generator, hand: Hand, aspect: Aspect) -> list[Spot]:
    count = int(rng.poisson(1.6 if aspect == "dorsal" else 0.25))
    moles = []
    for _ in range(count):
        radius = float(rng.uniform(0.06, 0.17))
        part, place = _somewhere(rng, hand, aspect)
        melanin = float(rng.uniform(0.15, 0.4))
        moles.append(Spot(part, place, (radius, radius * float(rng.uniform(0.8, 1.2))), 0.25, 0.02, melanin))
    return moles


def _scar(rng: np.random.Generator, hand: Hand, aspect: Aspect) -> Stroke | None:
    if rng.uniform() > (0.3 if aspect == "dorsal" else 0.15):
        return None
    part, (x, y) = _somewhere(rng, hand, aspect)
    length = float(rng.uniform(0.9, 2.4)) * (1.0 if part == PALM else 0.6)
    angle = float(rng.uniform(0, 3.14))
    end = (x + length * float(np.cos(angle)), y + length * float(np.sin(angle)))
    fresh = float(rng.uniform(-0.1, 0.7))
    bend = float(rng.normal(0, 0.08))
    return Stroke(part, (x, y), end, 0.1, bend, dark=-0.12, relief=0.04, melanin=-0.22, blood=fresh)


def _somewhere(rng: np.random.Generator, hand: Hand, aspect: Aspect) -> tuple[int, Point]:
    if rng.uniform() < 0.65:
        low = 0.5 if aspect == "dorsal" else 1.5
        return PALM, (float(rng.uniform(-2.8, 3.0)), float(rng.uniform(low, 8.2)))
    part = int(rng.integers(5))
    digit = hand.digits[part]
    across = 0.6 * digit.radii[1]
    return part, (float(rng.uniform(-across, across)), float(rng.uniform(1.2, digit.joints[-2] + 0.2)))
