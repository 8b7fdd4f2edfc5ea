"""Occlusion maps: how the embedding of a photo changes when parts of it are blanked.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2; for a similarity, the
first of the two forms of Stylianou et al., "Visualizing Deep Similarity Networks" (WACV 2019).

* The photo is divided into a regular grid of cells. A window of cells is blanked at a time and moved by one cell. A
  cell gets the mean of the changes by its windows, each divided equally among the cells that the window covers.
* The value of a cell is a vector, the original embedding minus the one with the cell blanked: its dot product with
  another photo's embedding is what the cell contributes to their similarity, for any tower and head.
* A part is replaced by the same part of the photo, blurred until only its colours are left: a uniform colour would
  create edges that the model responds to, above all on the plain background behind a hand.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.models.tower import patch_places

Fill = Literal["blur", "mean"]
_MOST_CELLS = 16  # per side; more are not worth their cost
_RESNET_CELL = 16  # pixels
_BLUR = 0.12  # standard deviation of the blur, as a share of the photo's longer side


def tiling(embedder: Embedder) -> tuple[int, int]:
    """Rows and cols of the grid: a ViT's patches, cells of 16 pixels for a ResNet, at most 16 per side."""
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
    """The photos with the cells that are True replaced by the photo's mean colour, or by the blurred photo."""
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
    """The photo's embedding, of unit length, and how much each cell contributes to it.

    Needs a forward pass per position of a window of `window` x `window` cells: (rows + window - 1) * (cols + window
    - 1), and one for the photo itself.
    """
    rows, cols = tiling(embedder)
    windows = _windows(rows, cols, window)
    hidden = np.concatenate([np.zeros((1, rows, cols), bool), windows])
    device = embedder.mean.device
    photo = photo.to(device)
    filled = _fillings(photo[None], fill)[0]
    embedded = []
    with embedder.evaluating():
        for start in range(0, len(hidden), batch_size):
            cells = hidden[start : start + batch_size]
            mask = _pixels(cells, photo.shape[1], photo.shape[2]).to(device)
            batch = torch.where(mask, filled, photo)
            conditions = None if condition is None else condition.to(device).expand(len(batch))
            embedded.append(embedder.embed(batch, conditions, flip_tta=flip_tta).cpu().double().numpy())
    embeddings = np.concatenate(embedded)
    changed = (embeddings[:1] - embeddings[1:]) / windows.sum(axis=(1, 2))[:, None]
    shares = np.einsum("wrc,wd->rcd", windows, changed) / window**2
    return embeddings[0], shares


def _windows(rows: int, cols: int, window: int) -> Bool[np.ndarray, "place rows cols"]:
    """All positions of a window that cover at least one cell; each cell is then in window x window of them."""
    tops, lefts = np.arange(1 - window, rows), np.arange(1 - window, cols)
    of_rows = (np.arange(rows) >= tops[:, None]) & (np.arange(rows) < tops[:, None] + window)
    of_cols = (np.arange(cols) >= lefts[:, None]) & (np.arange(cols) < lefts[:, None] + window)
    covered = of_rows[:, None, :, None] & of_cols[None, :, None, :]
    return covered.reshape(-1, rows, cols)


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
    """Gaussian blur along one axis; weights are renormalised at the edges, so that nothing outside contributes."""
    place = torch.arange(photos.shape[axis], device=photos.device, dtype=torch.float32)
    weights = torch.softmax(-(place[:, None] - place).square() / (2 * deviation**2), dim=1)
    return (photos.movedim(axis, -1) @ weights.T).movedim(-1, axis)
