"""Photos to `Features`: an image tower, what of it may learn, and its order from input to output."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.models.clip import (
    build_image_tower,
    feature_widths,
    image_features,
    joint_projection,
    layers_in_order,
    patch_grid,
)
from handreid.types import Features


class Backbone(nn.Module):
    """An image tower of open_clip; `config` rebuilds it without the recipe or the original weights."""

    def __init__(self, visual: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.visual = visual
        self.config = config
        self._frozen: list[nn.Parameter] = []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Backbone":
        return cls(build_image_tower(config), config)

    @property
    def size(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        size: Any = self.visual.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def widths(self) -> dict[str, int]:
        return feature_widths(self.visual)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Rows, cols and width of the patches."""
        return patch_grid(self.visual)

    @property
    def projection(self) -> Float[Tensor, "pooled joint"] | None:
        """From `pooled` to `joint`, where that is a matrix."""
        return joint_projection(self.visual)

    def forward(self, photos: Float[Tensor, "batch 3 height width"]) -> Features:
        return image_features(self.visual, photos)

    @property
    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters from the input up: the stem, each block, and what comes after the last block."""
        ordered = layers_in_order(self.visual)
        inside = {id(parameter) for layer in ordered for parameter in layer}
        return [*ordered, [parameter for parameter in self.visual.parameters() if id(parameter) not in inside]]

    def freeze(self, blocks: int) -> None:
        """The stem and the first `blocks` blocks learn nothing from here on; 0 freezes nothing."""
        most = len(self.layers) - 2
        if blocks > most:
            raise RecipeError(f"freeze_blocks is {blocks}, but the tower has {most} blocks")
        self.freeze_layers(blocks + 1 if blocks else 0)

    def freeze_layers(self, count: int) -> None:
        """The first `count` of `layers` learn nothing from here on, all others as they did before any freezing."""
        self.thaw()
        for layer in self.layers[:count]:
            for parameter in layer:
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
                    self._frozen.append(parameter)
        self.train(self.training)

    def thaw(self) -> None:
        """What was frozen may learn again; what never learned stays as it is."""
        while self._frozen:
            self._frozen.pop().requires_grad_(True)

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but a frozen batch norm keeps its statistics too."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self
