"""Draws docs/figures/augment.png: one rendered hand, and four draws of every augmentation.

python docs/augment_figure.py

Nobody's hand: no figure shows a real person's photo.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from handreid.build import build_augment, enlargement
from handreid.data.mixing import CutMix, Mixup
from handreid.data.rendered import render
from handreid.recipe import parse_recipe
from handreid.types import Preprocessing

OUT = Path(__file__).parent / "figures" / "augment.png"
SIDE, DRAWS = 112, 4
STEPS = {
    "crop": "{kind: crop}",
    "padding": "{kind: padding, pixels: 8}",
    "affine": "{kind: affine}",
    "perspective": "{kind: perspective, probability: 1.0}",
    "background": "{kind: background, probability: 1.0}",
    "colour_jitter": "{kind: colour_jitter}",
    "rand_augment": "{kind: rand_augment}",
    "augmix": "{kind: augmix}",
    "random_erasing": "{kind: random_erasing, probability: 1.0}",
}
MEAN = (0.48, 0.46, 0.41)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = render(Path(folder) / "hands", identities=6, photos=2, seed=9, size=160, workers=1)
        hands = [Image.open(path).convert("RGB") for path in sorted((table.parent / "Hands").iterdir())]
    light = [hand for hand in hands if min(np.median(np.asarray(hand)[-1], axis=0)) > 225]
    light.sort(key=lambda hand: float(np.mean(hand)))  # the darkest skin shows most
    rows = {name: augmented(light[0], step) for name, step in STEPS.items()}
    rows["mixup"] = mixed(Mixup(1.0, 1.0), light)
    rows["cutmix"] = mixed(CutMix(1.0, 1.0), light)
    OUT.parent.mkdir(exist_ok=True)
    draw(light[0].resize((SIDE, SIDE)), rows)


def augmented(hand: Image.Image, step: str) -> list[np.ndarray]:
    recipe = parse_recipe(
        "name: figure\nmodel: {backbone: {name: handreid-tiny, weights: none}}\n"
        f"stages: [{{kind: fine_tune, augment: [{step}]}}]",
        "figure",
    )
    augment = build_augment(recipe.stages[0], Preprocessing((SIDE, SIDE), MEAN, MEAN))
    side = round(SIDE * enlargement(recipe.stages[0]))
    torch.manual_seed(6)
    return [augment(hand.resize((side, side))).permute(1, 2, 0).numpy() for _ in range(DRAWS)]


def mixed(mix: Mixup | CutMix, hands: list[Image.Image]) -> list[np.ndarray]:
    torch.manual_seed(6)
    chosen = [np.asarray(hand.resize((SIDE, SIDE))).transpose(2, 0, 1) for hand in (hands[0], hands[-1])]
    batch = torch.from_numpy(np.stack(chosen))
    return [mix(batch, torch.arange(2))[0][0].permute(1, 2, 0).numpy() for _ in range(DRAWS)]


def draw(hand: Image.Image, rows: dict[str, list[np.ndarray]]) -> None:
    """Two augmentations side by side in every row, the hand itself first."""
    blocks = [("as it is", [np.asarray(hand)]), *rows.items()]
    lines = -(-len(blocks) // 2)
    figure, axes = plt.subplots(
        lines, 2 * DRAWS + 1, figsize=(9.6, 1.2 * lines), width_ratios=[1] * 4 + [0.25] + [1] * 4
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (name, pictures) in enumerate(blocks):
        line, left = number // 2, (DRAWS + 1) * (number % 2)
        axes[line, left].set_title(name, loc="left", fontsize=9, pad=3)
        for column, picture in enumerate(pictures):
            axes[line, left + column].imshow(picture)
            axes[line, left + column].add_patch(Rectangle((-0.5, -0.5), SIDE, SIDE, fill=False, edgecolor="0.6"))
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.965, wspace=0.05, hspace=0.22)
    figure.savefig(OUT, dpi=90, facecolor="white")
    with Image.open(OUT) as drawn:
        drawn.quantize(256, kmeans=2).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
