"""How many parameters learn, part by part."""

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from handreid.errors import RecipeError
from handreid.files import write_json
from handreid.models.embedder import Embedder
from handreid.models.lora import LowRank
from handreid.recipe import FineTune


def count_parameters(embedder: Embedder, objectives: nn.ModuleDict) -> dict[str, int]:
    """Numbers that learn in the encoder, in its low-rank changes, in what was added to it, in the head, and in each
    objective by its name. What is frozen does not count; what thaws later in the stage does.
    """
    visual = embedder.backbone.visual
    changes = [own for module in visual.modules() if isinstance(module, LowRank) for own in module.parameters()]
    inside = {id(own) for own in changes}
    parts: dict[str, Iterable[nn.Parameter]] = {
        "encoder": [own for own in visual.parameters() if id(own) not in inside],
        "low-rank changes": changes,
        **embedder.backbone.added,
        "head": embedder.head.parameters(),
        **{name: objective.parameters() for name, objective in objectives.items()},
    }
    return {name: sum(own.numel() for own in part if own.requires_grad) for name, part in parts.items()}


def count_all(embedder: Embedder, objectives: nn.ModuleDict) -> int:
    """Numbers in the embedder and the objectives, learning or not."""
    return sum(own.numel() for part in (embedder, *objectives.values()) for own in part.parameters())


def write_parameter_counts(folder: Path, learning: dict[str, int], every: int, say: Callable[[str], None]) -> None:
    """Says and writes what learns in a stage that is about to begin, as `parameters.json` in its folder."""
    total = sum(learning.values())
    named = ", ".join(f"{name} {count:,}" for name, count in learning.items() if count)
    say(f"learning: {named} ({total / every:.2%} of {every:,})")
    write_json(folder / "parameters.json", {"learning": learning, "learning_in_all": total, "in_all": every})


def check_trainable(stage: FineTune, embedder: Embedder, objectives: nn.ModuleDict) -> None:
    """Raises RecipeError for a stage with a frozen encoder in which nothing else has parameters that learn."""
    others = {name: count for name, count in count_parameters(embedder, objectives).items() if name != "encoder"}
    if stage.freeze_encoder and not any(others.values()):
        raise RecipeError(
            "freeze_encoder leaves no trainable parameters: give the model visual_prompts or a head with "
            "parameters, or use a term with a classifier, such as cross_entropy"
        )
