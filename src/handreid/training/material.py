"""What a run works on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handreid.data.manifest import Manifest, read
from handreid.data.splits import Split, make_split, natural_protocol
from handreid.errors import RunError
from handreid.recipe import Recipe


@dataclass(frozen=True)
class Material:
    """What a run works on: photos as a manifest, and who trains, validates and tests."""

    path: Path
    manifest: Manifest
    split: Split

    @property
    def facts(self) -> dict[str, Any]:
        """What every result carries of the data it was got on."""
        return {
            "manifest": str(self.path.absolute()),
            "manifest_hash": self.manifest.hash,
            "split_hash": self.split.hash,
            "draws_hash": self.split.draws_hash,
            "notes": list(self.split.notes),
        }


def read_material(recipe: Recipe, data: Path | None) -> Material:
    path = data or recipe.data.manifest
    if path is None:
        raise RunError("which photos? give --data MANIFEST, or data.manifest in the recipe")
    manifest = read(path)
    chosen = recipe.data
    split = make_split(
        manifest,
        protocol=natural_protocol(manifest) if chosen.protocol == "auto" else chosen.protocol,
        view=None if chosen.aspect == "all" else chosen.aspect,
        label=manifest.label_kinds[-1] if chosen.label == "auto" else chosen.label,
        validation=chosen.validation,
        validation_share=chosen.validation_share,
        test_share=chosen.test_share,
        draws=recipe.evaluate.draws,
        seed=chosen.seed,
        cameras=chosen.cameras,
    )
    return Material(path, manifest, split)
