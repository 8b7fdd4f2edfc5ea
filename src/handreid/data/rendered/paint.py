"""The colour of every part, as log reflectance, and its gloss.

Skin is layered as in optics: a curve from the lightest to the darkest skin indexed by melanin, times absorption by
blood. Creases, veins, moles and scars are additions to those fields; nails, rings and cloth replace the colour.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from handreid.data.rendered.anatomy import Person
from handreid.data.rendered.line_art import ink, windows
from handreid.data.rendered.pose import Limb
from handreid.data.rendered.scene import METALS, POLISHES, Colour, Scene
from handreid.data.rendered.shape import Box, Grid, Part
from handreid.data.rendered.skin_marks import PALM, Surface
from handreid.data.rendered.textures import cloudy, grainy, streaky, texels

Plane = Float32[np.ndarray, "height width"]
Planes = Float32[np.ndarray, "3 height width"]

# sRGB of skin from the lightest to the darkest, evenly spaced in `tone`
SKIN = (
    (250, 226, 212),
    (242, 208, 186),
    (232, 190, 160),
    (216, 172, 140),
    (191, 142, 110),
    (156, 109, 82),
    (117, 79, 58),
    (82, 52, 37),
    (56, 36, 28),
)
LEVELS, DARKEST = 512, 1.25
BLOOD = (0.08, 0.52, 0.4)  # absorption of red, green and blue
DARK = (0.85, 1.0, 1.05)  # creases are warm
IVORY = (0.72, 0.63, 0.5)


def linear(value: int) -> float:
    v = value / 255
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


@lru_cache(maxsize=1)
def skin_curve() -> Float32[np.ndarray, "3 levels"]:
    """Log reflectance for melanin from 0 to `DARKEST`; linear beyond the darkest skin."""
    logs = np.log([[linear(c) for c in colour] for colour in SKIN]).T
    tones = np.linspace(0, 1, len(SKIN))
    ends = logs[:, -1:] + (logs[:, -1:] - logs[:, -2:-1]) * (DARKEST - 1) * (len(SKIN) - 1)
    levels = np.linspace(0, DARKEST, LEVELS)
    rows = [np.interp(levels, [*tones, DARKEST], [*row, *end]) for row, end in zip(logs, ends, strict=True)]
    return np.array(rows, dtype=np.float32)


@dataclass
class Painted:
    part: Part
    colour: Planes  # log reflectance
    gloss: Plane | None


def paint(grid: Grid, part: Part, who: Person, marks: Surface, scene: Scene) -> Painted:
    ink(grid, part, marks)
    painted = Painted(part, _skin(part, who, scene), None)
    if part.index != PALM:
        limb = scene.limbs[part.index]
        _nail(grid, painted, who, limb, scene)
        if scene.worn.ring and scene.worn.ring_digit == part.index:
            _ring(painted, METALS[scene.worn.ring], limb)
    return painted


def _skin(part: Part, who: Person, scene: Scene) -> Planes:
    palmar = scene.aspect == "palmar"
    key = (hash_of(who.subject) + 97 * part.index + 31 * int(palmar) + 13 * int(scene.side == "left")) % 509
    texel = texels(part.x, part.y, 22.0, (key * 5, key * 3))
    cloud, grain = np.take(cloudy(), texel), np.take(grainy(), texel)
    tone = who.tone * (0.62 - 0.17 * who.tone) if palmar else who.tone
    melanin = part.melanin * (1.0 - 0.35 * who.tone)
    melanin += tone
    if palmar:
        melanin += part.rim * np.float32(0.75 * (who.tone - tone))
    melanin += cloud * np.float32(0.012)
    part.blood += cloud * np.float32(0.07)
    part.blood += 0.32 if palmar else 0.14
    wear = 0.008 + 0.0005 * who.age
    part.dark += grain * np.float32(wear)
    if not palmar and who.hairiness > 0.05:
        hair = np.maximum(np.take(streaky(), texel) - np.float32(1.2), 0)
        hair *= np.float32(min(who.hairiness, 1.2) * (0.22 if part.index == PALM else 0.12))
        part.dark += hair
    index = np.clip(melanin * np.float32(LEVELS / DARKEST), 0, LEVELS - 1).astype(np.intp)
    colour = np.empty((3, *index.shape), np.float32)
    warm = (0.0, 0.02 * who.warmth, -0.07 * who.warmth)
    for c in range(3):
        colour[c] = np.take(skin_curve()[c], index)
        colour[c] -= part.blood * np.float32(BLOOD[c])
        colour[c] -= part.dark * np.float32(DARK[c])
        colour[c] += np.float32(warm[c])
    return colour


def hash_of(subject: str) -> int:
    value = 7
    for letter in subject:
        value = (value * 31 + ord(letter)) % 65521
    return value


def _nail(grid: Grid, painted: Painted, who: Person, limb: Limb, scene: Scene) -> None:
    part, nail = painted.part, limb.digit.nail
    radius, tip = limb.digit.radii[-1], limb.true[-1]
    bed, edge = tip - nail.length - 0.1, tip - 0.1 + nail.free_edge
    corners = np.array([(x, u) for x in (-radius, radius) for u in (bed, edge)])
    (box,) = windows(grid, part, [corners], np.array([0.15]))
    if box is None:
        return
    palmar = scene.aspect == "palmar"
    across = part.x[box] * np.float32(1 / radius)
    half = math.asin(nail.width)
    if not palmar:
        across = np.arcsin(np.clip(across, -1, 1)) - np.float32(limb.roll)
    u = part.y[box]
    v = (u - np.float32((bed + edge) / 2)) * np.float32(2 / (edge - bed))
    w = np.abs(across) * np.float32(1 / (nail.width if palmar else half))
    inside = 1 - _power(w, nail.squareness) - _power(np.abs(v), nail.squareness)
    cover = np.clip(inside * 2.2 + 0.3, 0, 1)
    free = np.clip((u - np.float32(tip - 0.12)) * np.float32(8) - 0.12 * w * w * 8, 0, 1)
    if palmar:
        _nail_behind(painted, box, inside, radius, scene)
        return
    groove = np.exp(-((inside - np.float32(-0.12)) ** 2) * 22)
    moon = np.clip(1 - (u - np.float32(bed)) * np.float32(1 / (0.15 + 0.3 * nail.moon)) - 0.4 * w * w, 0, 1) * nail.moon
    polish = POLISHES.get(scene.worn.polish or "")
    bare = _bare_nail(who)
    gloss = np.zeros_like(part.x)
    gloss[box] = cover * np.float32(0.5 if polish else 0.16)
    painted.gloss = gloss
    for c in range(3):
        colour = painted.colour[c][box]
        colour -= groove * np.float32(0.38)
        if polish:
            target: Plane | np.float32 = np.float32(math.log(polish[c]))
        else:
            target = np.float32(bare[c]) + (np.float32(math.log(IVORY[c])) - np.float32(bare[c])) * np.maximum(
                free, moon * np.float32(0.45)
            )
        colour += (target - colour) * cover
    outer = np.maximum(part.outline[box], -np.float32(9))
    part.outline[box] = np.minimum(outer, -inside * np.float32(radius * 0.35))
    part.height[box] += cover * np.float32(0.03)
    np.maximum(part.height[box], np.where(inside > 0, np.float32(0.25), -9), out=part.height[box])


def _power(value: Plane, exponent: float) -> Plane:
    power: Plane = np.exp(np.log(np.maximum(value, np.float32(1e-4))) * np.float32(exponent))
    return power


def _bare_nail(who: Person) -> Colour:
    level = int((0.06 + 0.36 * who.tone) * LEVELS / DARKEST)
    r, g, b = (float(skin_curve()[c][level]) - 0.42 * BLOOD[c] for c in range(3))
    return r, g, b


def _nail_behind(painted: Painted, box: Box, inside: Plane, radius: float, scene: Scene) -> None:
    """From the palm's side a long nail shows past the fingertip."""
    part = painted.part
    behind = np.clip(part.outline[box] * 12, 0, 1) * np.clip(inside * 6, 0, 1)
    polish = POLISHES.get(scene.worn.polish or "", IVORY)
    for c in range(3):
        colour = painted.colour[c][box]
        colour += (np.float32(math.log(polish[c] * 0.8)) - colour) * behind
    part.outline[box] = np.minimum(part.outline[box], -inside * np.float32(radius * 0.35))
    part.height[box] += behind * np.maximum(np.float32(0.05) - part.height[box], 0)


def _ring(painted: Painted, metal: Colour, limb: Limb) -> None:
    part = painted.part
    centre = 0.62 * limb.true[1]
    band = np.clip((np.float32(0.17) - np.abs(part.y - np.float32(centre))) * 14 + 0.5, 0, 1)
    facing = np.clip(1 - part.x * part.x * np.float32(0.8 / limb.digit.radii[0] ** 2), 0.15, 1)
    shine = np.log(facing * (0.75 + 0.45 * np.cos(part.x * 9)))
    for c in range(3):
        painted.colour[c] += (shine + np.float32(math.log(metal[c])) - painted.colour[c]) * band
    part.relief += band * np.float32(0.08)
    part.outline -= band * np.float32(0.06)
    gloss = painted.gloss if painted.gloss is not None else np.zeros_like(part.x)
    painted.gloss = np.maximum(gloss, band * np.float32(0.7))
