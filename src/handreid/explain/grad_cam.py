"""Which places of the last map an embedding is made of, by gradients: Grad-CAM and its relatives.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (2017),
equations 1 and 2: a channel's weight is the mean of its gradient over the places, a place's value the weighted sum of
its channels, and what is negative is cut off.

* The paper differentiates a class score; an embedding has none. Here it is the product of the embedding, before it is
  made of unit length, with a vector of unit length that is held fixed: the photo's own embedding, or that of the photo
  that it is compared with. With the own one this is the embedding's length. (Its cosine to itself would not do: it is
  at its maximum, and all of its gradients are zero.)
* A ViT has no last map of channels. Its places are the patches that enter the last block; see `last_feature_map`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from handreid.models.embedder import Embedder
from handreid.models.tower import last_feature_map

Map = Float[Tensor, "photo rows cols"]


def grad_cam(
    embedder: Embedder,
    photos: UInt8[Tensor, "photo 3 height width"],
    conditions: Int[Tensor, " photo"] | None = None,
    *,
    towards: Float[Tensor, "photo dim"] | None = None,
) -> Map:
    """Never negative, of no unit. `towards` is what a photo is compared with; None is itself."""
    places, gradient = activations_and_gradients(embedder, photos, conditions, towards)
    return (places * gradient.mean((1, 2), keepdim=True)).sum(3).relu()


def activations_and_gradients(
    embedder: Embedder,
    photos: UInt8[Tensor, "photo 3 height width"],
    conditions: Int[Tensor, " photo"] | None,
    towards: Float[Tensor, "photo dim"] | None,
) -> tuple[Float[Tensor, "photo rows cols channel"], Float[Tensor, "photo rows cols channel"]]:
    """The last map, and the gradient of what is said above to it. The embedder is left as it was."""
    only_early = set(embedder.test_features) == {"penultimate"}
    visual = embedder.backbone.visual
    with embedder.evaluating(), torch.inference_mode(False), torch.no_grad():
        with last_feature_map(visual, before=int(only_early)) as found:
            compared = embedder.concat_features(embedder(photos, conditions)).float()
        unit = F.normalize(compared.detach() if towards is None else towards.float(), dim=1)
        (gradient,) = torch.autograd.grad((compared * unit).sum(), found[0])
    return _as_grid(embedder, found[0].detach().float()), _as_grid(embedder, gradient.float())


def _as_grid(embedder: Embedder, tensor: Tensor) -> Float[Tensor, "photo rows cols channel"]:
    if tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1)
    rows, cols, _ = embedder.backbone.grid
    return tensor[:, -rows * cols :].reshape(len(tensor), rows, cols, -1)
