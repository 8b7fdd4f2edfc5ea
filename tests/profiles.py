"""Colour profiles made for tests: ICC version 2, of matrix and curve, of one curve for grey, of a table for CMYK."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))  # adapted to D50
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def rgb(primaries: tuple[tuple[float, float, float], ...], gamma: float | None = None) -> bytes:
    """`gamma` None is sRGB's own curve."""
    curve = _curve(gamma)
    tags = {b"wtpt": _xyz(D50)}
    for letter, colour in zip(b"rgb", primaries, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(colour)
        tags[bytes([letter]) + b"TRC"] = curve
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey(gamma: float | None = None) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": _xyz(D50), b"kTRC": _curve(gamma)})


def cmyk() -> bytes:
    """Paper whose inks take away light linearly in L*, with black ink that is not quite black: (16, 0, 0) in Lab."""
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    ink = np.minimum(1, grid[:, :3].mean(1) + grid[:, 3])
    lab = np.stack([100 - 84 * ink, 60 * (grid[:, 1] - grid[:, 0]) * (1 - grid[:, 3]), 0 * ink], 1)
    coded = np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1).round().clip(0, 255).astype(np.uint8)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).reshape(-1))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + coded.tobytes() + 3 * ramp
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"wtpt": _xyz(D50), b"A2B0": table, b"A2B1": table})


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))


def _curve(gamma: float | None) -> bytes:
    if gamma is not None:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    x = np.linspace(0, 1, 1024)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + (65535 * y).round().astype(">u2").tobytes()


def _profile(space: bytes, between: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">2I", start + len(data), len(content))
        data += padded
    header = b"".join(
        (
            struct.pack(">I", start + len(data)),
            b"none",
            struct.pack(">I", 0x02100000),
            kind,
            space,
            between,
            struct.pack(">6H", 2024, 1, 1, 0, 0, 0),
            b"acsp",
            bytes(28),
            struct.pack(">3i", *(round(65536 * value) for value in D50)),
            bytes(48),
        )
    )
    return header + struct.pack(">I", len(tags)) + table + data
