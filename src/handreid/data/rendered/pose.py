"""How the hand is held in one photo, and where its bones lie in the hand's frame (cm)."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from handreid.data.rendered.anatomy import Digit, Hand, Point

Points = Float64[np.ndarray, "points 2"]
OPEN = (0.0, -0.27, -0.06, 0.16, 0.42)  # directions of fully spread fingers, radians from +y
CLOSED = (0.0, 0.035, 0.0, -0.03, -0.075)


@dataclass(frozen=True)
class Pose:
    spread: float  # 0 fingers together, 1 wide open
    directions: tuple[float, ...]  # radians from +y towards +x; the thumb's against its metacarpal
    thumb_swing: float  # radians; positive closes the thumb
    shortening: tuple[tuple[float, ...], ...]  # cosine of every joint's bend
    bows: tuple[float, ...]
    rolls: tuple[float, ...]  # radians each digit is turned about its own axis
    wrist_bend: float

    @property
    def words(self) -> str:
        return (
            "fingers together"
            if self.spread < 0.18
            else "fingers wide apart"
            if self.spread > 0.7
            else "relaxed fingers"
        )


@dataclass(frozen=True)
class Limb:
    """A digit as it lies in the photo: an axis from its base, with the joints' true and foreshortened places."""

    digit: Digit
    base: Point
    along: Point  # unit vector
    true: tuple[float, ...]  # cm along the bones: 0, joints, tip
    seen: tuple[float, ...]  # the same in the picture's plane
    bow: float
    roll: float

    @property
    def length(self) -> float:
        return self.seen[-1]

    def places(self, points: Points) -> Points:
        """From the digit's frame (across, along) to the hand's."""
        a = np.interp(points[:, 1], self.true, self.seen)
        a += np.minimum(points[:, 1], 0) + np.maximum(points[:, 1] - self.true[-1], 0)
        b = points[:, 0] + self.bow * (a / self.length) ** 2
        ex, ey = self.along
        return np.stack([self.base[0] + a * ex + b * ey, self.base[1] + a * ey - b * ex], axis=1)

    def place(self, x: float, u: float) -> Point:
        (point,) = self.places(np.array([[x, u]])).tolist()
        return point[0], point[1]


def sample_pose(rng: np.random.Generator) -> Pose:
    spread = float(rng.uniform(0, 0.12) if rng.uniform() < 0.1 else np.clip(rng.normal(0.55, 0.15), 0.12, 1.0))
    fingers = [
        c + spread * (o - c) + float(rng.normal(0, 0.015 + 0.015 * spread)) for o, c in zip(OPEN, CLOSED, strict=True)
    ]
    bend = float(abs(rng.normal(0, 0.09)))
    return Pose(
        spread=spread,
        directions=(float(rng.normal(0.1, 0.06)), *fingers[1:]),
        thumb_swing=float(rng.uniform(-0.1, 0.05) + 0.22 * (1 - spread)),
        shortening=tuple(
            tuple(math.cos(min(abs(bend + float(rng.normal(0, 0.07))), 0.75)) for _ in range(2 if i == 0 else 3))
            for i in range(5)
        ),
        bows=tuple(float(v) for v in rng.normal(0, 0.06, 5)),
        rolls=tuple(float(v) for v in rng.normal((0.5, 0.1, 0.0, -0.08, -0.2), 0.06)),
        wrist_bend=float(rng.normal(0, 0.08)),
    )


def limbs(hand: Hand, pose: Pose) -> tuple[Limb, ...]:
    return tuple(_limb(hand, pose, i) for i in range(5))


def _limb(hand: Hand, pose: Pose, index: int) -> Limb:
    digit, direction, base = hand.digits[index], pose.directions[index], hand.digits[index].base
    if index == 0:
        root = hand.thumb_root
        reach = math.dist(root, base)
        angle = math.atan2(base[0] - root[0], base[1] - root[1]) + pose.thumb_swing
        base = (root[0] + reach * math.sin(angle), root[1] + reach * math.cos(angle))
        direction = angle + direction
    true, seen = [0.0], [0.0]
    for bone, share in zip(digit.phalanges, pose.shortening[index], strict=True):
        true.append(true[-1] + bone)
        seen.append(seen[-1] + bone * share)
    return Limb(
        digit,
        base,
        (math.sin(direction), math.cos(direction)),
        tuple(true),
        tuple(seen),
        digit.bow + pose.bows[index],
        pose.rolls[index],
    )
