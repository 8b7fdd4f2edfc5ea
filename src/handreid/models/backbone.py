"""Photos to `Features`: an image tower, what was added to it, what may learn, and its order from input to output.

* What is added (visual prompts, side information) stands beside the tower and not in it: freezing, low-rank changes and
  rates that fall with depth are of the tower's own parameters, the pretrained ones; what is added is new and learns.
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
        width = patch_grid(visual)[2]  # of a ViT's class token, and of what a ResNet pools
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
        """Parameters of what was added to the tower, by its name; empty for a plain one."""
        parts = {"visual prompts": self.visual_prompts, "side information": self.side_information}
        return {name: list(part.parameters()) for name, part in parts.items() if part is not None}

    @property
    def layers(self) -> list[list[nn.Parameter]]:
        """The tower's own parameters from the input up: the stem, each block, and what comes after the last block."""
        ordered = layers_in_order(self.visual)
        inside = {id(parameter) for layer in ordered for parameter in layer}
        return [*ordered, [parameter for parameter in self.visual.parameters() if id(parameter) not in inside]]

    def freeze(self, blocks: int) -> None:
        """The stem and the first `blocks` blocks learn nothing from here on; 0 freezes nothing."""
        most = len(self.layers) - 2
        if blocks > most:
            raise RecipeError(f"freeze_blocks is {blocks}, but the tower has {most} blocks")
        self.freeze_layers(blocks + 1 if blocks else 0)

    def freeze_tower(self) -> None:
        """The whole tower learns nothing from here on; what was added to it does."""
        self.freeze_layers(len(self.layers))

    def freeze_layers(self, count: int) -> None:
        """The first `count` of `layers` learn nothing from here on, all others as they did before any freezing."""
        self.unfreeze()
        for layer in self.layers[:count]:
            for parameter in layer:
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
                    self._frozen.append(parameter)
        self.train(self.training)

    def unfreeze(self) -> None:
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


def _prompts_for(visual: nn.Module, chosen: dict[str, Any]) -> VisualPrompts:
    places = prompt_spec(visual)
    if places is None:
        raise RecipeError(
            "visual_prompts are extra tokens of a ViT, but this tower is a ResNet: remove them, or use a ViT"
        )
    blocks, width, patch = places
    return VisualPrompts(**chosen, blocks=blocks, width=width, patch=patch)
