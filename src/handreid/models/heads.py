"""What stands between the backbone's features and the objectives."""

from torch import Tensor, nn

from handreid.types import Features


class PlainHead(nn.Module):
    """Features as they are."""

    def __init__(self, widths: dict[str, int]) -> None:
        super().__init__()
        self.names = tuple(widths)

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {name: getattr(features, name) for name in self.names}


class BnneckHead(nn.Module):
    """One batch normalisation per feature, its bias frozen at zero.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (2019), section 3.6: the
    classifier sees the normalised feature, a metric loss the one before; without a bias the identities stay around
    the origin, which is where the cosine of the retrieval looks from.
    """

    def __init__(self, widths: dict[str, int]) -> None:
        super().__init__()
        self.necks = nn.ModuleDict({name: _neck(width) for name, width in widths.items()})

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {name: neck(getattr(features, name)) for name, neck in self.necks.items()}


def _neck(width: int) -> nn.BatchNorm1d:
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)
    return neck
