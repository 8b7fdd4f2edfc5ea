"""Which parts of a photo made its embedding, and which parts of two photos made them alike.

* One photo: attention rollout for a ViT and Grad-CAM for a ResNet, as papers show them; occlusion where asked for.
* A match: occlusion, which needs no look inside, hence is the same for all towers and heads, and says what it measured.
  `benchmarks/saliency.py` compares it with the others by what happens to the similarity when the parts go.
* Two parts correspond in so far as blanking the one takes away the same of its embedding as blanking the other takes
  of its own: their strength is the product of the two changes, and also s(x, y) - s(x', y) - s(x, y') + s(x', y'),
  what the similarity s has only with both parts. (In windows of one cell exactly; with larger ones, the mean of them.)
* Maps lie on even tilings of the photo as the model saw it. Overlapping patches are shared out by how much of a cell
  they cover.
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
    """`left` and `right` say, in units of the cosine, how much it falls with a cell; negative where it rises.

    `pairs` are the strongest corresponding cells, strongest first, none beside another on either photo.
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
    """Maps whose largest value is 1, and the name of the method in words; all 0 where there is nothing to see.

    Rollout is a share of attention, so nowhere 0; the others are cut off at 0. All are of the photo alone, never of its
    mirror image. Raises WeightsError for rollout of a ResNet.
    """
    chosen = natural_method(embedder) if method == "auto" else method
    device = embedder.mean.device
    found = []
    for start in range(0, len(photos), batch_size):
        batch = photos[start : start + batch_size].to(device)
        known = None if conditions is None else conditions[start : start + batch_size].to(device)
        found.append(_maps(embedder, batch, known, chosen, batch_size))
    maps = np.concatenate(found).clip(min=0)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(highest > 0, highest, 1), METHODS[chosen]


def natural_method(embedder: Embedder) -> Literal["rollout", "grad-cam"]:
    """What papers show for such a tower."""
    return "grad-cam" if prompt_spec(embedder.backbone.visual) is None else "rollout"


def caveat(embedder: Embedder, method: Method) -> str:
    """A sentence that says what such a map is not; it belongs below every one."""
    natural = natural_method(embedder)
    chosen = natural if method == "auto" else method
    return CAVEATS["grad-cam of a ViT" if (chosen, natural) == ("grad-cam", "rollout") else chosen]


def match_maps(
    embedder: Embedder,
    left: UInt8[Tensor, "3 height width"],
    right: UInt8[Tensor, "3 height width"],
    conditions: Int[Tensor, "2"] | None = None,
    *,
    flip_tta: bool = False,
    batch_size: int = 16,
) -> Match:
    """`flip_tta` as the embeddings are evaluated; see `Embedder.embed`."""
    known = (None, None) if conditions is None else (conditions[0], conditions[1])
    (one, of_one), (other, of_other) = (
        occlusion_map(embedder, photo, condition, flip_tta=flip_tta, batch_size=batch_size)
        for photo, condition in zip((left, right), known, strict=True)
    )
    return Match(float(one @ other), of_one @ other, of_other @ one, _strongest(of_one, of_other), METHODS["occlusion"])


def _maps(
    embedder: Embedder, photos: Tensor, conditions: Tensor | None, method: str, batch_size: int
) -> Float[np.ndarray, "photo rows cols"]:
    if method == "occlusion":
        found = []
        for n, photo in enumerate(photos):
            own, parts = occlusion_map(
                embedder, photo, None if conditions is None else conditions[n], batch_size=batch_size
            )
            found.append(parts @ own)
        return np.stack(found)
    made = (rollout if method == "rollout" else grad_cam)(embedder, photos, conditions)
    return _evenly(embedder, made.double().cpu().numpy())


def _evenly(embedder: Embedder, maps: Float[np.ndarray, "photo rows cols"]) -> Float[np.ndarray, "photo rows cols"]:
    """Of patches that may overlap, and may leave an edge unseen, to as many even cells."""
    sides, steps = patch_places(embedder.backbone.visual)
    down, across = (
        _cover(length, count, side, step)
        for length, count, side, step in zip(embedder.backbone.size, maps.shape[1:], sides, steps, strict=True)
    )
    even: Float[np.ndarray, "photo rows cols"] = np.einsum("rp,npq,cq->nrc", down, maps, across)
    return even


def _cover(length: int, count: int, side: int, step: int) -> Float[np.ndarray, "cell patch"]:
    """How much of each of `count` cells of a length each patch covers, rows summing to 1."""
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
    chosen: list[tuple[Cell, Cell, float]] = []
    for place in np.argsort(-strengths, axis=None, kind="stable"):
        mine, theirs = divmod(int(place), strengths.shape[1])
        strength = float(strengths[mine, theirs])
        if len(chosen) == _PAIRS or strength <= max(0.0, _WEAKEST * (chosen[0][2] if chosen else 0.0)):
            break
        one, other = divmod(mine, shape[1]), divmod(theirs, shape[1])
        if all(_apart(one, a) and _apart(other, b) for a, b, _ in chosen):
            chosen.append((one, other, strength))
    return tuple(chosen)


def _apart(one: Cell, other: Cell) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 1
