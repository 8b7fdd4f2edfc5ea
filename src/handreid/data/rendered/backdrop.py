"""The background behind the hand, in linear RGB."""

import math

import numpy as np
from jaxtyping import Float32

from handreid.data.rendered.scene import Background
from handreid.data.rendered.textures import SIDE, cloudy, grainy, streaky, texels

Plane = Float32[np.ndarray, "height width"]
Planes = Float32[np.ndarray, "3 height width"]
FINE = 128  # pixels a side at which a texel of noise is a pixel


def backdrop(background: Background, side: int) -> Planes:
    sin, cos = math.sin(background.angle), math.cos(background.angle)
    steps = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5).astype(np.float32)
    x = (steps * np.float32(cos))[None, :] + (steps * np.float32(sin))[:, None]
    y = (steps * np.float32(cos))[:, None] - (steps * np.float32(sin))[None, :]
    mix, shade = _pattern(background, x, y)
    shade = shade * (1 + background.slope * 2 * x)
    first, second = background.colours
    planes = np.empty((3, side, side), np.float32)
    for c in range(3):
        planes[c] = (first[c] + (second[c] - first[c]) * mix) * shade
    return planes


def _pattern(background: Background, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """How far from the first colour to the second, and how bright, at every pixel."""
    kind, scale, offset = background.kind, background.scale, background.offset
    cloud = np.take(cloudy(), texels(x, y, FINE * scale, offset))
    none = np.zeros_like(x)
    if kind in ("white", "paper"):
        return np.clip(cloud * 0.2 + 0.3, 0, 1), 1 + cloud * np.float32(0.012 if kind == "white" else 0.03)
    if kind == "gradient":
        return np.clip(0.5 + x * scale + cloud * 0.03, 0, 1), none + 1
    if kind == "wood":
        grain = np.take(streaky(), texels(x, y + 0.02 * cloud, FINE * scale * 1.4, offset))
        rings = np.sin(x * np.float32(30 * scale) + cloud * np.float32(1.3))
        plank = np.abs((x * scale * 2.2 + 0.3) % 1.0 - 0.5) > 0.485
        return np.clip(0.45 + 0.22 * grain + 0.2 * rings, 0, 1), np.where(plank, np.float32(0.45), np.float32(1.0))
    if kind == "cloth":
        weave = np.sin(x * np.float32(200 * scale)) * np.sin(y * np.float32(200 * scale))
        stripes = np.clip(np.sin(x * np.float32(26 * scale)) * 4, 0, 1) if offset[0] % 3 == 0 else none
        folds = np.take(cloudy(), texels(x, y, FINE * 0.3 * scale, offset))
        return np.clip(stripes + 0.12 * weave + 0.1, 0, 1), 1 + np.clip(folds, -2, 2) * np.float32(0.13)
    if kind == "stone":
        grain = np.take(grainy(), texels(x, y, FINE * scale, offset))
        return np.clip(0.4 + 0.35 * cloud + 0.2 * grain, 0, 1), 1 + grain * np.float32(0.05)
    return _clutter(x, y, background), 1 + cloud * np.float32(0.08)


def _clutter(x: Plane, y: Plane, background: Background) -> Plane:
    """Edges of sheets, books and things."""
    rng = np.random.Generator(np.random.Philox(background.offset[0] * SIDE + background.offset[1]))
    mix = np.zeros_like(x)
    for _ in range(6):
        cx, cy, w, h, turn = (float(v) for v in rng.uniform((-0.7, -0.7, 0.08, 0.08, 0), (0.7, 0.7, 0.4, 0.4, 3.1)))
        dx, dy = x - np.float32(cx), y - np.float32(cy)
        u = np.abs(dx * np.float32(math.cos(turn)) + dy * np.float32(math.sin(turn))) - np.float32(w)
        v = np.abs(dy * np.float32(math.cos(turn)) - dx * np.float32(math.sin(turn))) - np.float32(h)
        cover = np.clip(np.maximum(u, v) * -FINE, 0, 1)
        mix += (np.float32(rng.uniform(0.0, 1.0)) - mix) * cover
    return mix
