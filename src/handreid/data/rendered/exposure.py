"""From a canvas to a photo: light and shadow, lens, sensor."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageFilter

from handreid.data.rendered.anatomy import Person
from handreid.data.rendered.backdrop import backdrop
from handreid.data.rendered.compose import Canvas, compose
from handreid.data.rendered.scene import Light, Postprocessing, Scene
from handreid.data.rendered.shape import Grid
from handreid.data.rendered.skin_marks import Surface

Plane = Float32[np.ndarray, "height width"]
Planes = Float32[np.ndarray, "3 height width"]
Photo = UInt8[np.ndarray, "height width 3"]

SOFTENING = (0.82, 1.0, 1.06)  # red light travels under the skin: shaded skin is warm
STEEPEST = 2.2
ROLL = 1 << 20
STEPS = 2048  # of the tone curve, up to twice white
FINE_UP_TO = 192  # pictures up to this side are painted at one and a half times their size


def apply_camera(who: Person, marks: Surface, scene: Scene, size: int) -> Photo:
    grid = Grid(size * 3 // 2 if size <= FINE_UP_TO else size, scene.framing)
    canvas = compose(grid, who, marks, scene)
    cover = np.clip(canvas.outline * np.float32(-grid.pixels_per_cm) + np.float32(0.5), 0, 1)
    hand = _lit(canvas, scene.light, grid)
    hand *= cover
    cover, hand = _smaller(cover, size), np.stack([_smaller(plane, size) for plane in hand])
    scenery = backdrop(scene.background, size)
    scenery *= (1 - _shadow(cover, scene.light, grid.pixels_per_cm * size / grid.side)) * (1 - cover)
    scenery += hand
    return _sensed(scenery, scene)


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


def _smaller(plane: Plane, size: int) -> Float32[np.ndarray, "{size} {size}"]:
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BOX))


def _blurred(plane: Plane, sigma: float) -> Plane:
    """About a Gaussian blur, by way of a picture whose pixels are `1.5 sigma` wide: wide blurs need no more."""
    rows, cols = plane.shape
    small = max(round(cols / max(1.5 * sigma, 1)), 2), max(round(rows / max(1.5 * sigma, 1)), 2)
    coarse = Image.fromarray(plane).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(coarse.resize((cols, rows), Image.Resampling.BICUBIC))


def _shadow(cover: Plane, light: Light, ppc: float) -> Plane:
    lx, ly, lz = light.direction
    reach = 0.9 * ppc / max(lz, 0.3)
    cast = _moved(cover, round(-ly * reach), round(-lx * reach))
    contact = 0.35 * light.shadow
    wide = _blurred(cast, light.softness * ppc) * np.float32(light.shadow - contact)
    wide += _blurred(cover, 0.3 * ppc) * np.float32(contact)
    return np.maximum(wide, 0)


def _moved(plane: Plane, down: int, right: int) -> Plane:
    """Shifted; new pixels repeat the edge."""
    rows, cols = (np.clip(np.arange(n) - k, 0, n - 1) for n, k in zip(plane.shape, (down, right), strict=True))
    shifted: Plane = plane[rows][:, cols]
    return shifted


def _sensed(picture: Planes, scene: Scene) -> Photo:
    camera, light, finish, side = scene.camera, scene.light, scene.finish, picture.shape[1]
    for c in range(3):
        picture[c] *= np.float32(light.exposure * light.colour[c] * camera.gains[c])
    if camera.vignette:
        away = np.square(np.linspace(-1, 1, side, dtype=np.float32))
        picture *= 1 - np.float32(camera.vignette / 2) * (away[:, None] + away[None, :])
    picture = _shaken(picture, finish)
    picture *= np.float32(STEPS / 2)
    np.clip(picture, 0, STEPS - 1, out=picture)
    grey = np.take(_tone_curve(camera.contrast), picture.astype(np.intp))
    if camera.saturation != 1:
        luma = grey[0] * np.float32(0.3) + grey[1] * np.float32(0.59) + grey[2] * np.float32(0.11)
        grey = luma + (grey - luma) * np.float32(camera.saturation)
        np.clip(grey, 0, 255, out=grey)
    sharp = Image.fromarray(np.ascontiguousarray(grey.astype(np.uint8).transpose(1, 2, 0)))
    lens = sharp.filter(ImageFilter.GaussianBlur(finish.blur * side))
    noisy = _grains(finish.noise_key, grey.size).reshape(side, side, 3) * np.float32(finish.noise)
    noisy += np.asarray(lens)
    noisy += 0.5
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


def _shaken(picture: Planes, finish: Postprocessing) -> Planes:
    """The camera moved while the shutter was open."""
    length, angle = finish.motion
    if not length:
        return picture
    steps = [(k / 4 - 0.5) * length * picture.shape[1] for k in range(5)]
    moved = [np.roll(picture, (round(s * math.sin(angle)), round(s * math.cos(angle))), axis=(1, 2)) for s in steps]
    mean: Planes = sum(moved[1:], moved[0]) / np.float32(len(moved))
    return mean


@lru_cache(maxsize=8)
def _tone_curve(contrast: float) -> Float32[np.ndarray, " steps"]:
    """Linear light to grey levels: a shoulder for highlights, then sRGB, then contrast about middle grey."""
    x = (np.arange(STEPS) + 0.5) * (2 / STEPS)
    x = np.where(x > 0.7, 0.7 + 0.3 * np.tanh((x - 0.7) / 0.3), x)
    srgb = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (255 * np.clip(0.5 + (srgb - 0.5) * contrast, 0, 1)).astype(np.float32)


def _grains(key: int, count: int) -> Float32[np.ndarray, " count"]:
    """Normal noise: a part of one long array, as drawing new noise for each photo takes longer than its hand's skin."""
    start = key % max(ROLL - count, 1)
    return np.resize(_roll()[start:], count)


@lru_cache(maxsize=1)
def _roll() -> Float32[np.ndarray, " roll"]:
    return np.random.Generator(np.random.Philox(4)).standard_normal(ROLL, dtype=np.float32)
