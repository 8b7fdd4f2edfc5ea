"""The conditions of one photo: everything that does not belong to the person."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from handreid.data.rendered.anatomy import Aspect, Hand, Point, Side
from handreid.data.rendered.pose import Limb, Pose, limbs, sample_pose

Colour = tuple[float, float, float]  # linear RGB, 1 is white
Matrix = tuple[tuple[float, float], tuple[float, float]]
Backing = Literal["white", "paper", "gradient", "wood", "cloth", "stone", "clutter"]

BACKINGS: tuple[Backing, ...] = ("white", "paper", "gradient", "wood", "cloth", "stone", "clutter")
BACKING_SHARES = (0.7, 0.09, 0.06, 0.05, 0.04, 0.03, 0.03)
CLOTHS: dict[str, Colour] = {
    "black": (0.015, 0.015, 0.018),
    "white": (0.75, 0.75, 0.73),
    "grey": (0.18, 0.18, 0.19),
    "blue": (0.03, 0.08, 0.3),
    "red": (0.35, 0.02, 0.03),
    "green": (0.04, 0.2, 0.08),
    "yellow": (0.7, 0.5, 0.06),
    "turquoise": (0.05, 0.42, 0.42),
    "purple": (0.16, 0.04, 0.28),
    "beige": (0.55, 0.43, 0.3),
}
POLISHES: dict[str, Colour] = {
    "red": (0.45, 0.01, 0.02),
    "dark red": (0.12, 0.005, 0.015),
    "pink": (0.75, 0.2, 0.35),
    "black": (0.012, 0.012, 0.014),
    "blue": (0.03, 0.1, 0.5),
    "white": (0.85, 0.83, 0.8),
    "brown": (0.14, 0.05, 0.03),
}
METALS: dict[str, Colour] = {"gold": (0.75, 0.48, 0.16), "silver": (0.62, 0.62, 0.64)}


@dataclass(frozen=True)
class Camera:
    """Ranges that a simulated camera draws from; `gains` is its colour cast."""

    name: str
    gains: Colour
    saturation: float
    contrast: float
    exposure: tuple[float, float]
    blur: tuple[float, float]  # Gaussian sigma as a share of the picture's side
    noise: tuple[float, float]  # standard deviation in grey levels of 255
    quality: tuple[int, int]  # JPEG
    view: tuple[float, float]  # cm across the picture
    vignette: float


CAMERAS = (
    Camera(
        "copy-stand", (1.0, 1.0, 1.0), 1.0, 1.05, (1.0, 1.15), (0.0, 0.004), (0.5, 2.5), (85, 96), (19.5, 21.0), 0.0
    ),
    Camera("phone", (1.03, 1.0, 0.96), 1.06, 1.1, (0.88, 1.12), (0.0, 0.005), (1.5, 5.0), (72, 93), (19.5, 23.0), 0.1),
    Camera(
        "webcam", (0.96, 1.0, 1.05), 0.82, 0.94, (0.78, 1.1), (0.003, 0.008), (3.0, 8.0), (50, 82), (20.0, 24.0), 0.2
    ),
)
FULLEST = 0.97  # share of the picture that a large or widely spread hand may take


@dataclass(frozen=True)
class Framing:
    """pixels = matrix @ cm + origin, with y down; both in shares of the picture's side."""

    matrix: Matrix
    origin: Point

    def place(self, point: Point) -> Point:
        (a, b), (c, d) = self.matrix
        return a * point[0] + b * point[1] + self.origin[0], c * point[0] + d * point[1] + self.origin[1]


@dataclass(frozen=True)
class Light:
    direction: tuple[float, float, float]  # towards the light; x right, y down, z to the camera; unit length
    ambient: float
    colour: Colour
    exposure: float
    shadow: float  # darkness of the shadow on the background, 0 to 1
    softness: float  # of that shadow, in cm


@dataclass(frozen=True)
class Background:
    kind: Backing
    colours: tuple[Colour, Colour]
    angle: float
    scale: float
    offset: tuple[int, int]
    slope: float  # uneven light across the picture


@dataclass(frozen=True)
class Accessories:
    """Accessories that cover skin. Places are cm: the cuff's edge below the wrist, the ring along its digit."""

    sleeve: str | None
    cuff: float
    ring: str | None
    ring_digit: int
    polish: str | None


@dataclass(frozen=True)
class Postprocessing:
    blur: float
    motion: tuple[float, float]  # length as a share of the side, angle
    noise: float
    quality: int
    noise_key: int


@dataclass(frozen=True)
class Scene:
    aspect: Aspect
    side: Side
    session: int
    pose: Pose
    limbs: tuple[Limb, ...]
    framing: Framing
    camera: Camera
    light: Light
    background: Background
    worn: Accessories
    finish: Postprocessing


def sample_scene(rng: np.random.Generator, hand: Hand, aspect: Aspect, session: int, polish: str | None) -> Scene:
    camera = CAMERAS[int(rng.choice(len(CAMERAS), p=[0.65, 0.25, 0.1]))]
    pose = sample_pose(rng)
    bones = limbs(hand, pose)
    framing = _framing(rng, hand, bones, mirrored=(hand.side == "right") != (aspect == "dorsal"), view=camera.view)
    return Scene(
        aspect=aspect,
        side=hand.side,
        session=session,
        pose=pose,
        limbs=bones,
        framing=framing,
        camera=camera,
        light=_light(rng, camera),
        background=_background(rng),
        worn=_worn(rng, framing, pose, polish),
        finish=_finish(rng, camera),
    )


def _framing(
    rng: np.random.Generator, hand: Hand, bones: tuple[Limb, ...], *, mirrored: bool, view: tuple[float, float]
) -> Framing:
    """Fingers hang down as over a table, turned by up to 20 degrees; the arm leaves the picture."""
    turn = math.pi + float(np.clip(rng.normal(0, 0.09), -0.35, 0.35))
    squeeze, shear = float(rng.uniform(0.97, 1.03)), float(rng.normal(0, 0.012))
    cos, sin, flip = math.cos(turn), math.sin(turn), -1.0 if mirrored else 1.0
    # mirror, then turn, then tilt, then y down
    a, b = flip * cos, sin
    c, d = flip * sin, -cos
    a, b, c, d = a * squeeze + shear * c, b * squeeze + shear * d, c / squeeze, d / squeeze
    ends = [
        limb.places(np.array([[-0.7, tip], [0.7, tip], [0.0, 0.8 * tip]])) for limb in bones for tip in limb.true[-1:]
    ]
    palm = [(-hand.wrist, 1.2), (hand.wrist, 1.2), (hand.digits[4].base[0] + 1.2, hand.digits[4].base[1])]
    marks = np.concatenate([*ends, palm]).tolist()
    xs, ys = [a * x + b * y for x, y in marks], [c * x + d * y for x, y in marks]
    scale = min(1 / float(rng.uniform(*view)), FULLEST / max(max(xs) - min(xs), max(ys) - min(ys)))
    room = 0.15 * (1 - scale * (max(xs) - min(xs))), 0.15 * (1 - scale * (max(ys) - min(ys)))
    shift = float(rng.uniform(-1, 1)) * room[0], float(rng.uniform(-1, 1)) * room[1]
    return Framing(
        ((a * scale, b * scale), (c * scale, d * scale)),
        (
            0.5 + shift[0] - scale * (max(xs) + min(xs)) / 2,
            0.5 + shift[1] - scale * (max(ys) + min(ys)) / 2,
        ),
    )


def _light(rng: np.random.Generator, camera: Camera) -> Light:
    azimuth, elevation = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.6, 1.35))
    warmth = float(np.clip(rng.normal(0, 0.35), -1, 1))
    flat = math.cos(elevation)
    return Light(
        direction=(flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)),
        ambient=float(rng.uniform(0.4, 0.7)),
        colour=(1 + 0.06 * warmth, 1.0, 1 - 0.12 * warmth),
        exposure=float(rng.uniform(*camera.exposure)),
        shadow=float(rng.uniform(0.1, 0.6)),
        softness=float(rng.uniform(0.25, 1.1)),
    )


def _background(rng: np.random.Generator) -> Background:
    kind = BACKINGS[int(rng.choice(len(BACKINGS), p=BACKING_SHARES))]
    names = list(CLOTHS)
    cloth = CLOTHS[names[int(rng.integers(len(names)))]], CLOTHS[names[int(rng.integers(len(names)))]]
    pale = float(rng.uniform(0.85, 1.1))
    brown = float(rng.uniform(0.1, 0.5))
    grey = float(rng.uniform(0.05, 0.6))
    tint = [float(v) for v in rng.uniform(0.85, 1.0, 3)]
    colours: dict[Backing, tuple[Colour, Colour]] = {
        "white": ((pale, pale, pale * 1.01), (pale * 0.97, pale, pale)),
        "paper": ((0.8 * tint[0], 0.8 * tint[1], 0.8 * tint[2]), (0.7, 0.7, 0.68)),
        "gradient": ((grey * tint[0], grey * tint[1], grey * tint[2]), (grey * 0.4, grey * 0.42, grey * 0.45)),
        "wood": ((brown, brown * 0.58, brown * 0.28), (brown * 0.45, brown * 0.22, brown * 0.09)),
        "cloth": (cloth[0], (cloth[0][0] * 0.5, cloth[0][1] * 0.5, cloth[0][2] * 0.5)),
        "stone": ((grey * tint[0], grey * tint[1], grey * tint[2]), (grey * 0.6, grey * 0.6, grey * 0.6)),
        "clutter": cloth,
    }
    return Background(
        kind=kind,
        colours=colours[kind],
        angle=float(rng.uniform(0, math.pi)),
        scale=float(rng.uniform(0.6, 1.6)),
        offset=(int(rng.integers(512)), int(rng.integers(512))),
        slope=float(rng.uniform(-0.15, 0.15)),
    )


def _worn(rng: np.random.Generator, framing: Framing, pose: Pose, polish: str | None) -> Accessories:
    names, metals = list(CLOTHS), list(METALS)
    cuff = float(rng.uniform(0.3, 3.0))
    # named only where it shows: a cuff's edge outside the picture is no sleeve
    x, y = framing.place((-cuff * math.sin(pose.wrist_bend), -cuff * math.cos(pose.wrist_bend)))
    shows = 0.03 < x < 0.97 and 0.03 < y < 0.97
    sleeve = names[int(rng.integers(len(names)))]
    ring = metals[int(rng.integers(len(metals)))]
    return Accessories(
        sleeve=sleeve if shows and rng.uniform() < 0.8 else None,
        cuff=cuff,
        ring=ring if rng.uniform() < 0.05 else None,
        ring_digit=int(rng.choice([1, 2, 3, 3])),
        polish=polish,
    )


def _finish(rng: np.random.Generator, camera: Camera) -> Postprocessing:
    moving = rng.uniform() < 0.06
    return Postprocessing(
        blur=float(rng.uniform(*camera.blur)),
        motion=(float(rng.uniform(0.01, 0.03)) if moving else 0.0, float(rng.uniform(0, math.pi))),
        noise=float(rng.uniform(*camera.noise)),
        quality=int(rng.integers(camera.quality[0], camera.quality[1] + 1)),
        noise_key=int(rng.integers(2**31)),
    )
