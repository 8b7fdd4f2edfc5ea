"""Photos to `Features`: an image tower with its additions, freezing, and the order of its layers.

* Additions (visual prompts, side information) are beside the tower, not in it: freezing, LoRA adapters and layer-wise
  learning rates apply to the tower's own, pretrained parameters; additions are new and always learn.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from handreid.errors import RecipeError
from handreid.models.clip import build_image_tower
from handreid.models.side_information import UNKNOWN, SideInformation
from handreid.models.tower import (
    feature_widths,
    image_features,
    joint_projection,
    layers_in_order,
    patch_grid,
    prompt_spec,
)
from handreid.models.visual_prompts import VisualPrompts
from handreid.types import Features

ADDED = ("visual_prompts", "side_information")


class Backbone(nn.Module):
    """An image tower of open_clip with additions; `config` rebuilds both without recipe or original weights.

    `visual_prompts` holds tokens, depth and dropout of `VisualPrompts`, `side_information` columns, strength and
    combinations of `SideInformation`; both are drawn from torch's global generator. Raises RecipeError for visual
    prompts in a tower that has no tokens.
    """

    def __init__(
        self,
        visual: nn.Module,
        config: dict[str, Any],
        *,
        visual_prompts: dict[str, Any] | None = None,
        side_information: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual
        added = {"visual_prompts": visual_prompts, "side_information": side_information}
        self.config = config | {name: value for name, value in added.items() if value is not None}
        self.visual_prompts = None if visual_prompts is None else _prompts_for(visual, visual_prompts)
        width = patch_grid(visual)[2]  # of a ViT's class token, and of a ResNet's pooled feature
        self.side_information = None if side_information is None else SideInformation(**side_information, width=width)
        self._frozen: list[nn.Parameter] = []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Backbone":
        tower = {name: value for name, value in config.items() if name not in ADDED}
        return cls(build_image_tower(tower), tower, **{name: config[name] for name in ADDED if name in config})

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

    def forward(
        self, photos: Float[Tensor, "batch 3 height width"], conditions: Int[Tensor, " batch"] | None = None
    ) -> Features:
        """`conditions` are what `SideInformation.look_up` gives; None is unknown for all photos.

        Raises ValueError for conditions where the model has no side information.
        """
        return image_features(
            self.visual, photos, prompts=self.visual_prompts, offset=self._offset(len(photos), conditions)
        )

    def _offset(self, photos: int, conditions: Tensor | None) -> Tensor | None:
        side = self.side_information
        if side is None:
            if conditions is not None:
                raise ValueError("side information is given, but this model takes none")
            return None
        if conditions is None:
            conditions = torch.full((photos,), UNKNOWN, device=side.vectors.device)
        offset: Tensor = side(conditions)
        return offset

    @property
    def added(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of each addition to the tower, by its name; empty for a plain tower."""
        parts = {"visual prompts": self.visual_prompts, "side information": self.side_information}
        return {name: list(part.parameters()) for name, part in parts.items() if part is not None}

    @property
    def layers(self) -> list[list[nn.Parameter]]:
        """The tower's own parameters from the input up: the stem, each block, and those after the last block."""
        ordered = layers_in_order(self.visual)
        inside = {id(parameter) for layer in ordered for parameter in layer}
        return [*ordered, [parameter for parameter in self.visual.parameters() if id(parameter) not in inside]]

    def freeze(self, blocks: int) -> None:
        """Freezes the stem and the first `blocks` blocks; 0 freezes nothing. Raises RecipeError for too many."""
        count = len(self.layers) - 2
        if blocks > count:
            raise RecipeError(f"freeze_blocks is {blocks}, but the tower has {count} blocks")
        self.freeze_layers(blocks + 1 if blocks else 0)

    def freeze_tower(self) -> None:
        """Freezes the whole tower; its additions still learn."""
        self.freeze_layers(len(self.layers))

    def freeze_layers(self, count: int) -> None:
        """Freezes the first `count` of `layers`; all others learn as they did before any freezing."""
        self.unfreeze()
        for layer in self.layers[:count]:
            for parameter in layer:
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
                    self._frozen.append(parameter)
        self.train(self.training)

    def unfreeze(self) -> None:
        """Parameters that were frozen here learn again; those that never learned stay frozen."""
        while self._frozen:
            self._frozen.pop().requires_grad_(True)

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but a frozen batch norm keeps its statistics too."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self


def _prompts_for(visual: nn.Module, options: dict[str, Any]) -> VisualPrompts:
    places = prompt_spec(visual)
    if places is None:
        raise RecipeError(
            "visual_prompts are extra tokens of a ViT, but this tower is a ResNet: remove them, or use a ViT"
        )
    blocks, width, patch = places
    return VisualPrompts(**options, blocks=blocks, width=width, patch=patch)
