"""Features that a head makes from the patch grid.

* Rows are the photo's, from top to bottom; a place is 32 pixels wide in a ResNet, one patch in a ViT.
* A linear layer before a batch norm has no bias: the norm would remove it, and it would learn from rounding errors
  only.
* Every pooling is over one photo; only the batch norms depend on the batch, and only in training.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError

Grid = tuple[int, int, int]  # rows, cols and width
EPSILON = 1e-6


class Parts(nn.Module, ABC):
    """Built from the grid's rows, cols and width; `widths` are those of the parts, by name."""

    widths: dict[str, int]

    @abstractmethod
    def forward(self, patches: Float[Tensor, "batch rows cols width"]) -> dict[str, Tensor]: ...


class Pcb(Parts):
    """Horizontal stripes, each averaged and reduced by a linear layer of its own.

    Sun et al., "Beyond Part Models: Person Retrieval with Refined Part Pooling" (2018), section 3: PCB without the
    refined pooling, six stripes reduced to 256. Its 1x1 convolution acts on one place here, so it is a linear layer;
    its batch norm is the head's neck, since a second one would leave the first nothing to learn. If the number of rows
    is no multiple of the stripes, neighbours share a row; see `stripe_rows`. The paper compares all stripes
    concatenated, reduced or not: `test_feature: {features: [parts], neck: before}`.
    """

    def __init__(self, grid: Grid, *, stripes: int, width: int) -> None:
        super().__init__()
        self.rows = stripe_rows(grid[0], stripes)
        self.widths = {f"stripe_{n}": width for n in range(1, stripes + 1)}
        self.reductions = nn.ModuleDict({name: nn.Linear(grid[2], width, bias=False) for name in self.widths})

    def forward(self, patches: Float[Tensor, "batch rows cols width"]) -> dict[str, Tensor]:
        pairs = zip(self.reductions.items(), self.rows, strict=True)
        return {name: reduction(patches[:, rows].mean((1, 2))) for (name, reduction), rows in pairs}


class Mgn(Parts):
    """The whole grid three times, its halves and its thirds: maxima, each reduced by layers of its own.

    Wang et al., "Learning Discriminative Features with Multiple Granularities for Person Re-Identification" (2018),
    section 3: maximum pooling, 1x1 convolution, batch norm, ReLU to 256. Its three branches have a last stage of the
    network each; ours share the whole tower, so that the three global parts differ by their reduction only. It
    classifies global features unreduced and stripes reduced, and has triplets on global ones only; here every objective
    reads all parts reduced. The paper compares all eight concatenated:
    `test_feature: {features: [parts], neck: before}`.
    """

    def __init__(self, grid: Grid, *, width: int) -> None:
        super().__init__()
        whole = slice(None)
        thirds = {f"third_{n}": rows for n, rows in enumerate(stripe_rows(grid[0], 3), 1)}
        halves = {f"half_{n}": rows for n, rows in enumerate(stripe_rows(grid[0], 2), 1)}
        self.rows = {"global_1": whole, "global_2": whole, **halves, "global_3": whole, **thirds}
        self.widths = dict.fromkeys(self.rows, width)
        self.reductions = nn.ModuleDict({name: _reduction(grid[2], width) for name in self.rows})

    def forward(self, patches: Float[Tensor, "batch rows cols width"]) -> dict[str, Tensor]:
        return {name: self.reductions[name](patches[:, rows].amax((1, 2))) for name, rows in self.rows.items()}


class Gem(Parts):
    """Generalised mean over the places, with one learned power for all channels.

    Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (2018), equation 3:
    (mean of x^p)^(1/p), for the maps after a ReLU. A ViT's patches have both signs. Clamping them at epsilon, as in the
    paper's code, would be a ReLU that the tower never had, without a gradient below it. Instead the lowest value of a
    channel in the photo, if negative, is subtracted and added again afterwards. So a map without negative values gives
    the paper's result, and any map its mean at power 1 and its maximum as the power goes to infinity. The power is
    clamped to 1 or above. Computed in fp32, relative to the maximum: no power overflows.
    """

    def __init__(self, grid: Grid, *, power: float) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self.widths = {"gem": grid[2]}

    def forward(self, patches: Float[Tensor, "batch rows cols width"]) -> dict[str, Tensor]:
        values = patches.to(torch.promote_types(patches.dtype, torch.float32)).flatten(1, 2)
        floor = values.amin(1).clamp(max=0)
        raised = (values - floor[:, None]).clamp(min=EPSILON)
        highest = raised.detach().amax(1)  # a scale: its value does not change the result, so it needs no gradient
        power = self.power.clamp(min=1)
        mean = (raised / highest[:, None]).pow(power).mean(1).pow(1 / power)
        return {"gem": highest * mean + floor}


class AttentionPooling(Parts):
    """A learned query attends to the places of its photo, in several heads, without a residual.

    Multi-head attention (Vaswani et al. 2017, section 3.2.2) with one query, as the class attention of Touvron et al.
    (2021, CaiT) without its residual and MLP. No biases. The query begins small, so the pooling begins near the mean.
    Raises RecipeError when heads do not divide the width.
    """

    def __init__(self, grid: Grid, *, heads: int) -> None:
        super().__init__()
        width = grid[2]
        if width % heads:
            fitting = [n for n in range(1, 17) if width % n == 0]
            raise RecipeError(
                f"model.head.heads is {heads}, which does not divide {width}, the width of the tower's patches; "
                f"use one of {', '.join(map(str, fitting))}"
            )
        self.widths = {"attention": width}
        self.query = nn.Parameter(torch.empty(width).normal_(std=0.02))  # one-dimensional: no weight decay
        self.attention = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)

    def forward(self, patches: Float[Tensor, "batch rows cols width"]) -> dict[str, Tensor]:
        places = patches.flatten(1, 2)
        pooled, _ = self.attention(self.query.expand(len(places), 1, -1), places, places, need_weights=False)
        return {"attention": pooled[:, 0]}


def stripe_rows(rows: int, stripes: int) -> list[slice]:
    """Stripe i of n covers rows floor(i R / n) up to ceil((i + 1) R / n): every row is in one, some in two.

    This is adaptive pooling's rule. Raises RecipeError when there are fewer rows than stripes.
    """
    if stripes > rows:
        raise RecipeError(
            f"model.head cuts the photo into {stripes} stripes, but the patch grid has {rows} rows; use fewer stripes "
            "or another head, a larger model.backbone.image_size, or a tower with smaller patches"
        )
    return [slice(i * rows // stripes, -(-(i + 1) * rows // stripes)) for i in range(stripes)]


def _reduction(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
