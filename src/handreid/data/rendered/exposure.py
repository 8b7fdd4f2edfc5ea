"""From a canvas to a photo: light and shadow, lens, sensor."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage

from handreid.data.rendered.anatomy import Person
from handreid.data.rendered.backdrop import backdrop
from handreid.data.rendered.compose import Canvas, compose
from handreid.data.rendered.form import Grid
from handreid.data.rendered.marks import Surface
from handreid.data.rendered.scene import Camera, Finish, Light, Scene

Plane = Float32[np.ndarray, "height width"]
Planes = Float32[np.ndarray, "3 height width"]
Photo = UInt8[np.ndarray, "height width 3"]

SOFTENING = (0.82, 1.0, 1.06)  # red light travels under the skin: shaded skin is warm
STEEPEST = 2.2
ROLL = 1 << 20
STEPS = 2048  # of the tone curve, up to twice white
FINE_UP_TO = 192  # pictures up to this side are painted at one and a half times their size


def expose(who: Person, marks: Surface, scene: Scene, size: int) -> Photo:
    grid = Grid(size * 3 // 2 if size <= FINE_UP_TO else size, scene.framing)
    canvas = compose(grid, who, marks, scene)
    cover = np.clip(canvas.outline * np.float32(-grid.pixels_per_cm) + np.float32(0.5), 0, 1)
    hand = _lit(canvas, scene.light, grid)
    hand *= cover
    cover, hand = _smaller(cover, size), np.stack([_smaller(plane, size) for plane in hand])
    scenery = backdrop(scene.background, size)
    scenery *= (1 - _shadow(cover, scene.light, grid.pixels_per_cm * size / grid.side)) * (1 - cover)
    scenery += hand
    return _sensed(_through_lens(scenery, scene.finish), scene)


def _lit(canvas: Canvas, light: Light, grid: Grid) -> Planes:
    """Lambert's law on the height field, wrapped round by ambient light, with occlusion in folds and a highlight."""
    ppc = grid.pixels_per_cm
    height = canvas.height + canvas.relief
    dy, dx = _slopes(height, ppc / 2)
    lx, ly, lz = light.direction
    steep = 1 / np.sqrt(1 + dx * dx + dy * dy)
    facing = (np.float32(lz) - dx * np.float32(lx) - dy * np.float32(ly)) * steep
    diffuse = np.maximum(facing * np.float32(1 / lz), 0)
    hollow = np.maximum(_blurred(np.maximum(canvas.height, -0.3), 0.42 * ppc) - canvas.height, 0)
    ambient = light.ambient * (0.55 + 0.45 * steep)
    shade = ambient + (1 - light.ambient) * diffuse
    log_shade = np.log(np.maximum(shade, np.float32(0.06))) - np.minimum(hollow * 1.5, 1.6)
    # the highlight: how near the normal is to the half vector between light and camera
    norm = math.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    half = (np.float32((lz + 1) / norm) - dx * np.float32(lx / norm) - dy * np.float32(ly / norm)) * steep
    spark = np.maximum(half, 0) ** 2
    spark *= spark
    spark *= spark
    spark *= spark
    spark *= canvas.gloss + np.float32(0.03)
    hand = np.empty_like(canvas.colour)
    for c in range(3):
        hand[c] = np.exp(canvas.colour[c] + log_shade * np.float32(SOFTENING[c])) + spark
    return hand


def _slopes(height: Plane, per_step: float) -> tuple[Plane, Plane]:
    dy, dx = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[2:], height[:-2], out=dy[1:-1])
    np.subtract(height[:, 2:], height[:, :-2], out=dx[:, 1:-1])
    for slope in (dy, dx):
        slope *= np.float32(per_step)
        np.clip(slope, -STEEPEST, STEEPEST, out=slope)
    return dy, dx


def _smaller(plane: Plane, size: int) -> Plane:
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BOX))


def _blurred(plane: Plane, sigma: float) -> Plane:
    """A Gaussian blur at a quarter of the resolution: wide blurs need no more."""
    rows, cols = plane.shape
    small = Image.fromarray(plane).resize((cols // 4, rows // 4), Image.Resampling.BOX)
    soft = ndimage.gaussian_filter(np.asarray(small), max(sigma / 4, 0.3), mode="nearest")
    return np.asarray(Image.fromarray(soft).resize((cols, rows), Image.Resampling.BILINEAR))


def _shadow(cover: Plane, light: Light, ppc: float) -> Plane:
    lx, ly, lz = light.direction
    reach = 0.9 * ppc / max(lz, 0.3)
    cast = _moved(cover, round(-ly * reach), round(-lx * reach))
    contact = 0.35 * light.shadow
    wide = _blurred(cast, light.softness * ppc) * np.float32(light.shadow - contact)
    return wide + _blurred(cover, 0.3 * ppc) * np.float32(contact)


def _moved(plane: Plane, down: int, right: int) -> Plane:
    return ndimage.shift(plane, (down, right), order=0, mode="nearest", prefilter=False)


def _through_lens(picture: Planes, finish: Finish) -> Planes:
    side = picture.shape[1]
    length, angle = finish.motion
    if length:
        steps = [((k / 4 - 0.5) * length * side) for k in range(5)]
        shifts = [(round(s * math.sin(angle)), round(s * math.cos(angle))) for s in steps]
        moved = [np.roll(picture, shift, axis=(1, 2)) for shift in shifts]
        picture = sum(moved[1:], moved[0]) / np.float32(len(moved))
    sigma = finish.blur * side
    if sigma > 0.25:
        picture = ndimage.gaussian_filter(picture, (0, sigma, sigma), mode="nearest", truncate=2.5)
    return picture


def _sensed(picture: Planes, scene: Scene) -> Photo:
    camera, light, side = scene.camera, scene.light, picture.shape[1]
    for c in range(3):
        picture[c] *= np.float32(light.exposure * light.colour[c] * camera.gains[c])
    if camera.vignette:
        away = np.square(np.linspace(-1, 1, side, dtype=np.float32))
        picture *= 1 - np.float32(camera.vignette / 2) * (away[:, None] + away[None, :])
    curve = _tone_curve(camera)
    grey = np.take(curve, np.clip(picture * np.float32(STEPS / 2), 0, STEPS - 1).astype(np.intp))
    if camera.saturation != 1:
        luma = grey[0] * np.float32(0.3) + grey[1] * np.float32(0.59) + grey[2] * np.float32(0.11)
        grey = luma + (grey - luma) * np.float32(camera.saturation)
    grey += _grains(scene.finish.noise_key, grey.size).reshape(grey.shape) * np.float32(scene.finish.noise)
    return np.ascontiguousarray((np.clip(grey, 0, 255) + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _tone_curve(camera: Camera) -> Float32[np.ndarray, " steps"]:
    """Linear light to grey levels: a shoulder for highlights, then sRGB, then contrast about middle grey."""
    x = (np.arange(STEPS) + 0.5) * (2 / STEPS)
    x = np.where(x > 0.7, 0.7 + 0.3 * np.tanh((x - 0.7) / 0.3), x)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (255 * np.clip(0.5 + (srgb - 0.5) * camera.contrast, 0, 1)).astype(np.float32)


def _grains(key: int, count: int) -> Float32[np.ndarray, " count"]:
    """Normal noise: a stretch of one long roll, as a new one for each photo takes longer than its hand's skin."""
    start = key % max(ROLL - count, 1)
    return np.resize(_roll()[start:], count)


@lru_cache(maxsize=1)
def _roll() -> Float32[np.ndarray, " roll"]:
    return np.random.Generator(np.random.Philox(4)).standard_normal(ROLL, dtype=np.float32)
