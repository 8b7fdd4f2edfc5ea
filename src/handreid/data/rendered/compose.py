"""Puts the parts together: which of them is in front at every pixel, and the outline of the whole hand."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from handreid.data.rendered.anatomy import Hand, Person
from handreid.data.rendered.paint import Painted, paint
from handreid.data.rendered.scene import CLOTHS, Scene
from handreid.data.rendered.shape import Grid, digit, palm
from handreid.data.rendered.skin_marks import Surface
from handreid.data.rendered.textures import cloudy, streaky, texels

Plane = Float32[np.ndarray, "height width"]
Planes = Float32[np.ndarray, "3 height width"]
OUTSIDE = -3.0
SEAM = 0.12  # cm over which one part gives way to the next
THUMB_LIFT = {"dorsal": -0.25, "palmar": 0.15}  # it lies below the palm's plane


@dataclass
class Canvas:
    height: Plane  # cm towards the camera; negative outside
    relief: Plane  # cm of creases and veins on top
    outline: Plane  # cm, negative inside
    colour: Planes  # log reflectance
    gloss: Plane


def compose(grid: Grid, who: Person, marks: Surface, scene: Scene) -> Canvas:
    hand, shape = who.hands[scene.side], (grid.side, grid.side)
    canvas = Canvas(
        np.full(shape, OUTSIDE, np.float32),
        np.zeros(shape, np.float32),
        np.full(shape, 9, np.float32),
        np.zeros((3, *shape), np.float32),
        np.zeros(shape, np.float32),
    )
    base = palm(grid, hand, scene)
    if base is not None:
        _lay(canvas, paint(grid, base, who, marks, scene))
    for index in (0, 4, 1, 3, 2):
        part = digit(grid, index, scene.limbs[index])
        if part is not None:
            if index == 0:
                part.height += np.float32(THUMB_LIFT[scene.aspect])
            _join(canvas, paint(grid, part, who, marks, scene))
    if scene.worn.sleeve is not None:
        _sleeve(grid, canvas, hand, scene)
    return canvas


def _lay(canvas: Canvas, painted: Painted) -> None:
    part, box = painted.part, painted.part.box
    canvas.height[box] = part.height
    canvas.relief[box] = part.relief
    canvas.outline[box] = part.outline
    canvas.colour[:, *box] = painted.colour


def _join(canvas: Canvas, painted: Painted) -> None:
    part, box = painted.part, painted.part.box
    below = canvas.height[box]
    lead = part.height - below
    weight = np.clip(lead * np.float32(1 / SEAM) + np.float32(0.5), 0, 1)
    if part.blend is not None:
        weight *= part.blend
    reach = np.float32(0.2) if part.blend is None else np.float32(0.12) + 0.5 * (1 - part.blend)
    merge = np.maximum(reach - np.abs(lead), 0)
    np.maximum(below, part.height, out=below)
    below += merge * merge / (4 * reach)
    canvas.relief[box] += (part.relief - canvas.relief[box]) * weight
    canvas.outline[box] = _union(canvas.outline[box], part.outline)
    colour = canvas.colour[:, *box]
    for c in range(3):
        colour[c] += (painted.colour[c] - colour[c]) * weight
    gloss = canvas.gloss[box]
    gloss *= 1 - weight
    if painted.gloss is not None:
        gloss += painted.gloss * weight


def _union(base: Plane, part: Plane) -> Plane:
    """Smooth minimum: rounds the corner where a finger leaves the palm."""
    near = np.maximum(np.float32(0.25) - np.abs(base - part), 0)
    near *= near
    union: Plane = np.minimum(base, part) - near
    return union


def _sleeve(grid: Grid, canvas: Canvas, hand: Hand, scene: Scene) -> None:
    bend = scene.pose.wrist_bend
    sin, cos = math.sin(bend), math.cos(bend)
    cuff, width = scene.worn.cuff, hand.wrist * 1.12 + 0.3
    corners = [(-cuff * sin + side * cos, -cuff * cos - side * sin) for side in (-width, width)]
    far = [(x - 30 * sin, y - 30 * cos) for x, y in corners]
    box = grid.box(np.array([*corners, *far]), 1.5)
    if box is None:
        return
    x, y = grid.coordinates(box)
    down = x * np.float32(-sin) + y * np.float32(-cos)
    across = x * np.float32(cos) - y * np.float32(sin)
    texel = texels(across, down, 9.0, scene.background.offset)
    folds = np.take(cloudy(), texel)
    edge = np.float32(cuff) + np.float32(0.06) * across * np.sin(np.float32(scene.background.angle)) - down
    outline = np.maximum(edge, np.abs(across) - (width + 0.04 * down + 0.05 * folds))
    cover = np.clip(outline * np.float32(-grid.pixels_per_cm) + np.float32(0.5), 0, 1)
    rows = np.take(streaky(), texel)
    ribs = 0.05 * rows + 0.12 * np.exp(-((edge + 0.5) ** 2) * 60)
    cloth = CLOTHS[str(scene.worn.sleeve)]
    for c in range(3):
        colour = canvas.colour[c][box]
        colour += (np.float32(math.log(cloth[c])) - ribs - colour) * cover
        # the cuff's shadow on the wrist
        colour -= np.exp(-np.maximum(outline, 0) * 3) * (1 - cover) * np.float32(0.5)
    canvas.gloss[box] *= 1 - cover
    height = 1.7 * (1 - np.exp(np.minimum(outline, 0))) + 0.3 + 0.12 * folds
    canvas.height[box] += (height - canvas.height[box]) * cover
    canvas.relief[box] *= 1 - cover
    canvas.outline[box] = np.minimum(canvas.outline[box], outline)
