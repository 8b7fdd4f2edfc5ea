"""One tile of periodic noise for skin, cloth, wood and stone, made once per process; the same in all of them."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int64

SIDE = 512
Plane = Float32[np.ndarray, "height width"]


@lru_cache(maxsize=1)
def cloudy() -> Float32[np.ndarray, "side side"]:
    """Falls off as 1/f^1.4: blotches of every size. Mean 0, standard deviation 1."""
    return _shaped(1, lambda fy, fx: np.hypot(fy, fx) ** -1.4)


@lru_cache(maxsize=1)
def grainy() -> Float32[np.ndarray, "side side"]:
    """Pores: a band of high frequencies."""
    return _shaped(2, lambda fy, fx: np.exp(-(((np.hypot(fy, fx) - 0.16) / 0.09) ** 2)))


@lru_cache(maxsize=1)
def streaky() -> Float32[np.ndarray, "side side"]:
    """Grain along the first axis: wood, and hair."""
    return _shaped(3, lambda fy, fx: np.exp(-((fy / 0.015) ** 2)) * (np.abs(fx) + 0.01) ** -0.35)


def _shaped(key: int, spectrum: object) -> Float32[np.ndarray, "side side"]:
    if not callable(spectrum):
        raise TypeError(spectrum)
    rng = np.random.Generator(np.random.Philox(key))
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    fy[0, 0] = 1.0  # the mean is removed below; any finite value does
    waves = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * spectrum(fy, fx)
    waves[0, 0] = 0
    tile = np.fft.irfft2(waves, (SIDE, SIDE))
    return np.ascontiguousarray(tile / tile.std(), dtype=np.float32)


def texels(x: Plane, y: Plane, per_unit: float, offset: tuple[int, int]) -> Int64[np.ndarray, "height width"]:
    """Flat indices into a tile, for `np.take`."""
    rows = (y * per_unit + (offset[0] + 4096)).astype(np.intp) & (SIDE - 1)
    cols = (x * per_unit + (offset[1] + 4096)).astype(np.intp) & (SIDE - 1)
    return (rows << 9) + cols
