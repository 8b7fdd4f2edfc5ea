"""What each part of a photo is worth to its embedding: parts are blanked, and the model is asked again.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2; for a similarity, the
first of the two forms of Stylianou et al., "Visualizing Deep Similarity Networks" (WACV 2019).

* A part is a cell of an even tiling of the photo; a window of cells is blanked at a time and moved a cell at a time. A
  cell gets the mean of what its windows changed, each shared out among the cells it covered.
* What a cell is worth is a vector, embedding without change less embedding with the change: its product with another
  photo's embedding is what the cell gives to their similarity, whatever the tower and the head.
* A part is blanked with the photo itself, blurred until nothing is left but its colours: an even colour would draw
  edges that the model takes for something, most of all on the plain background behind a hand.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.models.tower import patch_places

Fill = Literal["blur", "mean"]
_MOST_CELLS = 16  # a side: more would cost more than they show
_RESNET_CELL = 16  # pixels
_BLUR = 0.12  # deviation of the blur, as a share of the photo's longer side


def tiling(embedder: Embedder) -> tuple[int, int]:
    """Rows and cols of cells that a photo is cut into: a ViT's patches, 16 pixels for a ResNet, at most 16 a side."""
    height, width = embedder.backbone.size
    patch, _ = patch_places(embedder.backbone.visual)
    down, across = (min(side, _RESNET_CELL) for side in patch)
    return min(max(height // down, 1), _MOST_CELLS), min(max(width // across, 1), _MOST_CELLS)


def occlude(
    photos: UInt8[Tensor, "photo 3 height width"],
    cells: Bool[np.ndarray, "photo rows cols"],
    *,
    fill: Fill = "blur",
) -> UInt8[Tensor, "photo 3 height width"]:
    """The photos with the chosen cells of an even tiling blanked: by the photo's mean colour, or itself blurred."""
    mask = _pixels(cells, photos.shape[2], photos.shape[3]).to(photos.device)
    return torch.where(mask, _fillings(photos, fill), photos)


def occlusion_map(
    embedder: Embedder,
    photo: UInt8[Tensor, "3 height width"],
    condition: Int[Tensor, ""] | None = None,
    *,
    window: int = 2,
    fill: Fill = "blur",
    flip_tta: bool = False,
    batch_size: int = 16,
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, "rows cols dim"]]:
    """The photo's embedding, of unit length, and how much of it each cell made.

    It costs a pass per place of a window of `window` x `window` cells: (rows + window - 1) * (cols + window - 1).
    """
    rows, cols = tiling(embedder)
    windows = _windows(rows, cols, window)
    hidden = np.concatenate([np.zeros((1, rows, cols), bool), windows])
    device = embedder.mean.device
    photo = photo.to(device)
    filled = _fillings(photo[None], fill)[0]
    found = []
    for start in range(0, len(hidden), batch_size):
        cells = hidden[start : start + batch_size]
        mask = _pixels(cells, photo.shape[1], photo.shape[2]).to(device)
        batch = torch.where(mask, filled, photo)
        known = None if condition is None else condition.to(device).expand(len(batch))
        found.append(embedder.embed(batch, known, flip_tta=flip_tta).cpu().double().numpy())
    embeddings = np.concatenate(found)
    changed = (embeddings[:1] - embeddings[1:]) / windows.sum(axis=(1, 2))[:, None]
    shares = np.einsum("wrc,wd->rcd", windows, changed) / window**2
    return embeddings[0], shares


def _windows(rows: int, cols: int, window: int) -> Bool[np.ndarray, "place rows cols"]:
    """Every place of a window that covers at least a cell, so that each cell is in window x window of them."""
    tops, lefts = np.arange(1 - window, rows), np.arange(1 - window, cols)
    of_rows = (np.arange(rows) >= tops[:, None]) & (np.arange(rows) < tops[:, None] + window)
    of_cols = (np.arange(cols) >= lefts[:, None]) & (np.arange(cols) < lefts[:, None] + window)
    both = of_rows[:, None, :, None] & of_cols[None, :, None, :]
    return both.reshape(-1, rows, cols)


def _pixels(
    cells: Bool[np.ndarray, "photo rows cols"], height: int, width: int
) -> Bool[Tensor, "photo 1 height width"]:
    rows = torch.arange(height) * cells.shape[1] // height
    cols = torch.arange(width) * cells.shape[2] // width
    return torch.from_numpy(cells)[:, rows][:, :, cols].unsqueeze(1)


def _fillings(photos: UInt8[Tensor, "photo 3 height width"], fill: Fill) -> UInt8[Tensor, "photo 3 height width"]:
    if fill == "mean":
        mean = photos.float().mean((2, 3), keepdim=True)
        return mean.round().to(torch.uint8).expand_as(photos)
    deviation = _BLUR * max(photos.shape[2:])
    blurred = photos.float()
    for axis in (2, 3):
        blurred = _smoothed(blurred, axis, deviation)
    return blurred.round().clamp(0, 255).to(torch.uint8)


def _smoothed(photos: Float[Tensor, "photo 3 height width"], axis: int, deviation: float) -> Tensor:
    """Gaussian along one axis, weights renormalised at the edges, so that these get no colour from outside."""
    place = torch.arange(photos.shape[axis], device=photos.device, dtype=torch.float32)
    weights = torch.softmax(-(place[:, None] - place).square() / (2 * deviation**2), dim=1)
    return (photos.movedim(axis, -1) @ weights.T).movedim(-1, axis)
