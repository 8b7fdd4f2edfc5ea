"""Which parts of a photo its embedding depends on, and which parts of two photos make them similar.

* One photo: attention rollout for a ViT and Grad-CAM for a ResNet, as in papers; occlusion on request.
* A match: occlusion, which does not use the inside of the model, so it is the same for all towers and heads, and its
  values are measured changes. `benchmarks/saliency.py` compares it with the others by how the similarity changes when
  the parts are removed.
* Two parts correspond as far as blanking them removes the same from the two embeddings. Their strength is the dot
  product of the two changes, which equals s(x, y) - s(x', y) - s(x, y') + s(x', y'), the part of the similarity s that
  needs both. (Exact for windows of one cell; with larger ones, the mean over windows.)
* Maps are on regular grids over the photo as the model sees it. Values of overlapping patches are distributed over the
  cells in proportion to the area covered.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from handreid.explain.grad_cam import grad_cam
from handreid.explain.occlusion import occlusion_map
from handreid.explain.rollout import rollout
from handreid.models.embedder import Embedder
from handreid.models.tower import patch_places, prompt_spec

Method = Literal["auto", "rollout", "grad-cam", "occlusion"]
Cell = tuple[int, int]  # row and column
METHODS = {
    "rollout": "attention rollout (Abnar and Zuidema 2020, section 3; residual 0.5, heads averaged)",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of the embedding's length",
    "occlusion": "occlusion (Zeiler and Fergus 2014) by blur, windows of 2 x 2 cells",
}
CAVEATS = {
    "rollout": (
        "It shows where the network's attention went, not what it computed from it or whether that mattered, and it is "
        "not evidence of whose hand this is."
    ),
    "grad-cam": (
        "It is a first-order estimate, on a coarse grid, of what the embedding depends on, not of what distinguishes "
        "this hand from others, and it is not evidence of whose hand this is."
    ),
    "grad-cam of a ViT": (
        "Grad-CAM is made for convolutions; for the ViTs measured it was hardly better than the photo's contrast, "
        "which needs no model, so do not rely on this map. It is not evidence of whose hand this is."
    ),
    "occlusion": (
        "It says what this network loses when a part is blurred, one part at a time, not what an examiner should "
        "compare, and it is not evidence of whose hand this is."
    ),
}
_PAIRS = 6
_WEAKEST = 0.2  # of the strongest pair


@dataclass(frozen=True, eq=False)
class Match:
    """`left` and `right`: by how much the cosine falls when a cell is blanked; negative where it rises.

    `pairs` are the strongest corresponding cells, strongest first, no two of them adjacent on either photo.
    """

    similarity: float
    left: Float[np.ndarray, "rows cols"]
    right: Float[np.ndarray, "rows cols"]
    pairs: tuple[tuple[Cell, Cell, float], ...]
    method: str


def saliency(
    embedder: Embedder,
    photos: UInt8[Tensor, "photo 3 height width"],
    conditions: Int[Tensor, " photo"] | None = None,
    *,
    method: Method = "auto",
    batch_size: int = 16,
) -> tuple[Float[np.ndarray, "photo rows cols"], str]:
    """Maps scaled to a maximum of 1, and a description of the method; a map without positive values is all 0.

    Rollout is a share of attention, so above 0 everywhere; the others are clipped at 0. Maps are of the photo itself,
    without its mirror image. Raises WeightsError for rollout of a ResNet.
    """
    resolved = natural_method(embedder) if method == "auto" else method
    device = embedder.mean.device
    batches = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size].to(device)
        batch_conditions = None if conditions is None else conditions[start : start + batch_size].to(device)
        batches.append(_maps(embedder, batch, batch_conditions, resolved, batch_size))
    maps = np.concatenate(batches).clip(min=0)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1), METHODS[resolved]


def natural_method(embedder: Embedder) -> Literal["rollout", "grad-cam"]:
    """The usual method in papers for this tower."""
    return "grad-cam" if prompt_spec(embedder.backbone.visual) is None else "rollout"


def caveat(embedder: Embedder, method: Method) -> str:
    """The limits of the method in a sentence; to be shown below every map."""
    natural = natural_method(embedder)
    resolved = natural if method == "auto" else method
    return CAVEATS["grad-cam of a ViT" if (resolved, natural) == ("grad-cam", "rollout") else resolved]


def match_maps(
    embedder: Embedder,
    left: UInt8[Tensor, "3 height width"],
    right: UInt8[Tensor, "3 height width"],
    conditions: Int[Tensor, "2"] | None = None,
    *,
    flip_tta: bool = False,
    batch_size: int = 16,
) -> Match:
    """`flip_tta` as in the evaluation; see `Embedder.embed`. `conditions` are those of left and right."""
    condition_pair = (None, None) if conditions is None else (conditions[0], conditions[1])
    (left_embedding, left_parts), (right_embedding, right_parts) = (
        occlusion_map(embedder, photo, condition, flip_tta=flip_tta, batch_size=batch_size)
        for photo, condition in zip((left, right), condition_pair, strict=True)
    )
    return Match(
        float(left_embedding @ right_embedding),
        left_parts @ right_embedding,
        right_parts @ left_embedding,
        _strongest(left_parts, right_parts),
        METHODS["occlusion"],
    )


def _maps(
    embedder: Embedder, photos: Tensor, conditions: Tensor | None, method: str, batch_size: int
) -> Float[np.ndarray, "photo rows cols"]:
    if method == "occlusion":
        of_photos = []
        for n, photo in enumerate(photos):
            embedding, parts = occlusion_map(
                embedder, photo, None if conditions is None else conditions[n], batch_size=batch_size
            )
            of_photos.append(parts @ embedding)
        return np.stack(of_photos)
    maps = (rollout if method == "rollout" else grad_cam)(embedder, photos, conditions)
    return _evenly(embedder, maps.double().cpu().numpy())


def _evenly(embedder: Embedder, maps: Float[np.ndarray, "photo rows cols"]) -> Float[np.ndarray, "photo rows cols"]:
    """From patches, which may overlap or leave an edge of the photo uncovered, to a regular grid of the same size."""
    sides, steps = patch_places(embedder.backbone.visual)
    down, across = (
        _cover(length, count, side, step)
        for length, count, side, step in zip(embedder.backbone.size, maps.shape[1:], sides, steps, strict=True)
    )
    even: Float[np.ndarray, "photo rows cols"] = np.einsum("rp,npq,cq->nrc", down, maps, across)
    return even


def _cover(length: int, count: int, side: int, step: int) -> Float[np.ndarray, "cell patch"]:
    """Overlap of each patch with each of `count` equal cells along an axis of `length` pixels; rows sum to 1."""
    edges = np.arange(count + 1) * length / count
    starts = np.arange(count) * step
    covered = np.minimum(edges[1:, None], starts + side) - np.maximum(edges[:-1, None], starts)
    covered = covered.clip(min=0)
    shares: Float[np.ndarray, "cell patch"] = covered / covered.sum(axis=1, keepdims=True)
    return shares


def _strongest(
    left: Float[np.ndarray, "rows cols dim"], right: Float[np.ndarray, "rows cols dim"]
) -> tuple[tuple[Cell, Cell, float], ...]:
    shape = left.shape[:2]
    strengths = left.reshape(-1, left.shape[2]) @ right.reshape(-1, right.shape[2]).T
    pairs: list[tuple[Cell, Cell, float]] = []
    for place in np.argsort(-strengths, axis=None, kind="stable"):
        left_index, right_index = divmod(int(place), strengths.shape[1])
        strength = float(strengths[left_index, right_index])
        if len(pairs) == _PAIRS or strength <= max(0.0, _WEAKEST * (pairs[0][2] if pairs else 0.0)):
            break
        left_cell, right_cell = divmod(left_index, shape[1]), divmod(right_index, shape[1])
        if all(_apart(left_cell, a) and _apart(right_cell, b) for a, b, _ in pairs):
            pairs.append((left_cell, right_cell, strength))
    return tuple(pairs)


def _apart(cell: Cell, neighbour: Cell) -> bool:
    return max(abs(cell[0] - neighbour[0]), abs(cell[1] - neighbour[1])) > 1
