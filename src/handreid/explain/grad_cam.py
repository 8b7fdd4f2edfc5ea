"""Grad-CAM of an embedding: which positions of the last feature map contribute to it.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (2017),
equations 1 and 2: a channel's weight is the mean of its gradient over the positions, a position's value is the weighted
sum of its channels, and negative values are set to 0.

* The paper differentiates a class score, which an embedding does not have. Here it is the dot product of the embedding
  before normalisation with a fixed unit vector: the photo's own embedding, or that of the photo it is compared with.
  With its own, the product is the embedding's length. (The cosine to itself does not work: it is at its maximum, so all
  gradients are zero.)
* A ViT has no last map of channels. Here it is the patch tokens that enter the last block; see `last_feature_map`.
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
    """Values of 0 and more, without a unit. `towards`: embeddings the photos are compared with; None: their own."""
    places, gradient = activations_and_gradients(embedder, photos, conditions, towards)
    return (places * gradient.mean((1, 2), keepdim=True)).sum(3).relu()


def activations_and_gradients(
    embedder: Embedder,
    photos: UInt8[Tensor, "photo 3 height width"],
    conditions: Int[Tensor, " photo"] | None,
    towards: Float[Tensor, "photo dim"] | None,
) -> tuple[Float[Tensor, "photo rows cols channel"], Float[Tensor, "photo rows cols channel"]]:
    """The last feature map, and the gradient of the dot product above with respect to it. The embedder is unchanged."""
    only_early = set(embedder.test_features) == {"penultimate"}
    visual = embedder.backbone.visual
    with embedder.evaluating(), torch.inference_mode(False), torch.no_grad():
        with last_feature_map(visual, before=int(only_early)) as captured:
            compared = embedder.concat_features(embedder(photos, conditions)).float()
        unit = F.normalize(compared.detach() if towards is None else towards.float(), dim=1)
        (gradient,) = torch.autograd.grad((compared * unit).sum(), captured[0])
    return _as_grid(embedder, captured[0].detach().float()), _as_grid(embedder, gradient.float())


def _as_grid(embedder: Embedder, tensor: Tensor) -> Float[Tensor, "photo rows cols channel"]:
    if tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1)
    rows, cols, _ = embedder.backbone.grid
    return tensor[:, -rows * cols :].reshape(len(tensor), rows, cols, -1)
