"""Numbers of trainable parameters by part."""

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from handreid.errors import RecipeError
from handreid.files import write_json
from handreid.models.embedder import Embedder
from handreid.models.lora import LowRank
from handreid.recipe import FineTune


def count_parameters(embedder: Embedder, objectives: nn.ModuleDict) -> dict[str, int]:
    """Trainable parameters of the encoder, its LoRA adapters, modules added to it, the head, and each objective by
    name. Frozen parameters do not count; those that are unfrozen later in the stage do.
    """
    visual = embedder.backbone.visual
    changes = [
        parameter for module in visual.modules() if isinstance(module, LowRank) for parameter in module.parameters()
    ]
    inside = {id(parameter) for parameter in changes}
    parts: dict[str, Iterable[nn.Parameter]] = {
        "encoder": [parameter for parameter in visual.parameters() if id(parameter) not in inside],
        "low-rank changes": changes,
        **embedder.backbone.added,
        "head": embedder.head.parameters(),
        **{name: objective.parameters() for name, objective in objectives.items()},
    }
    return {
        name: sum(parameter.numel() for parameter in part if parameter.requires_grad) for name, part in parts.items()
    }


def count_all(embedder: Embedder, objectives: nn.ModuleDict) -> int:
    """All parameters of the embedder and the objectives, trainable or not."""
    return sum(parameter.numel() for part in (embedder, *objectives.values()) for parameter in part.parameters())


def write_parameter_counts(
    folder: Path, learning: dict[str, int], all_parameters: int, say: Callable[[str], None]
) -> None:
    """Prints the trainable parameters of a stage and writes them as `parameters.json` into its folder."""
    total = sum(learning.values())
    parts = ", ".join(f"{name} {count:,}" for name, count in learning.items() if count)
    say(f"learning: {parts} ({total / all_parameters:.2%} of {all_parameters:,})")
    write_json(folder / "parameters.json", {"learning": learning, "learning_in_all": total, "in_all": all_parameters})


def check_trainable(stage: FineTune, embedder: Embedder, objectives: nn.ModuleDict) -> None:
    """Raises RecipeError for a stage with a frozen encoder and no other trainable parameters."""
    counts = {name: count for name, count in count_parameters(embedder, objectives).items() if name != "encoder"}
    if stage.freeze_encoder and not any(counts.values()):
        raise RecipeError(
            "freeze_encoder leaves no trainable parameters: give the model visual_prompts or a head with "
            "parameters, or use a term with a classifier, such as cross_entropy"
        )
