"""Draws figures/losses.png: what each objective makes of the same hundred points of five identities.

    python docs/losses_figure.py

The points are the features: each moves by itself down the gradient, with no network between. Objectives are built from
recipe terms, as a run builds them. The same picture on every run.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from handreid.build import build_objectives
from handreid.models.heads import PlainHead
from handreid.recipe import FineTune
from handreid.types import Features, Outputs, Targets

IDENTITIES, EACH, STEPS, RATE = 5, 20, 200, 0.02
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito's, which colour-blind people tell
MARKS = ("o", "s", "^", "D", "v")
INK, QUIET, BEFORE = "#222222", "#666666", "#DADADA"
CE = {"kind": "cross_entropy", "label_smoothing": 0}
ARCFACE = {"kind": "arcface", "scale": 10}
CENTER = {"kind": "center", "weight": 0.5, "lr": 0.05}
TRIPLET = {"kind": "triplet", "margin": 1.0, "mining": "batch_all"}
PANELS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "cross_entropy": ("outwards and apart, without end", [CE]),
    "arcface": ("a direction each, by a margin", [ARCFACE]),
    "center": ("tight, but no farther apart", [CENTER]),
    "triplet": ("apart by the margin, then it stops", [TRIPLET]),
    "supcon": ("a direction each; length is free", [{"kind": "supcon"}]),
    "metric_learning (contrastive)": (
        "to a point each, apart by the margin",
        [{"kind": "metric_learning", "loss": "ContrastiveLoss", "arguments": {"neg_margin": 1.5}}],
    ),
    "cross_entropy + center": ("tight and apart", [CE, CENTER]),
    "the four together": ("cross_entropy, triplet, center, arcface", [CE, TRIPLET, CENTER, ARCFACE]),
}


def start() -> tuple[Tensor, Tensor]:
    """Five clouds that overlap, off the origin as CLIP's features are; and whose each point is."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(IDENTITIES).repeat_interleave(EACH)
    turns = 2 * math.pi * torch.arange(IDENTITIES) / IDENTITIES
    means = 0.75 * torch.stack([turns.cos(), turns.sin()], dim=1) + torch.tensor([0.25, 0.15])
    return means[labels] + 0.42 * torch.randn(len(labels), 2, generator=generator), labels


def moved(terms: list[dict[str, Any]], points: Tensor, labels: Tensor) -> Tensor:
    stage = FineTune.model_validate(
        {"objectives": [{**t, "features": ["pooled"]} for t in terms], "sampler": {"kind": "pk"}}
    )
    objectives = build_objectives(stage, PlainHead({"pooled": 2}, ("pooled",)), IDENTITIES, seed=0)
    points = points.clone().requires_grad_()
    optimizers = [torch.optim.SGD([points], lr=RATE * len(points)), torch.optim.SGD([points], lr=0)]
    if own := list(objectives.parameters()):
        optimizers[1] = torch.optim.Adam(own, lr=RATE)
    for _ in range(STEPS):
        features = Features(points, points, points, points[:, None, None])
        outputs = Outputs(features, {"pooled": points}, {"pooled": points})
        losses = [one(outputs, Targets(labels)) for one in objectives.values()]
        loss = torch.stack([term.weight * one for term, one in zip(stage.objectives, losses, strict=True)]).sum()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return points.detach()


def angles(points: Tensor, labels: Tensor) -> tuple[float, float]:
    """Degrees: mean from a point to its identity's mean direction; mean from that to the nearest other's."""
    unit = F.normalize(points)
    means = F.normalize(torch.stack([unit[labels == one].mean(dim=0) for one in range(IDENTITIES)]))
    within = (unit * means[labels]).sum(dim=1).clamp(-1, 1).acos()
    between = (means @ means.T).fill_diagonal_(-1).amax(dim=1).clamp(-1, 1).acos()
    return math.degrees(within.mean()), math.degrees(between.mean())


def draw(axes: Axes, title: str, what: str, points: Tensor, before: Tensor, labels: Tensor) -> None:
    axes.scatter(*before.T, s=5, color=BEFORE, linewidths=0)
    axes.plot(0, 0, "+", color=INK, markersize=7, markeredgewidth=0.8)
    for one, (colour, mark) in enumerate(zip(COLOURS, MARKS, strict=True)):
        axes.scatter(
            *points[labels == one].T, s=13, color=colour, marker=mark, alpha=0.85, edgecolors="white", linewidths=0.3
        )
    reach = 1.12 * max(points.abs().max().item(), before.abs().max().item())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("#CCCCCC")
    within, between = angles(points, labels)
    axes.set_title(title, size=8, weight="bold", color=INK, loc="left", pad=14)
    axes.text(0, 1.025, what, size=6.4, color=QUIET, transform=axes.transAxes)
    axes.text(
        0.5,
        -0.075,
        f"{within:.0f}° within, {between:.0f}° apart",
        size=7,
        color=INK,
        ha="center",
        transform=axes.transAxes,
    )


def main() -> None:
    torch.set_num_threads(1)
    before, labels = start()
    figure = Figure(figsize=(6.4, 7.2), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(3, 3).ravel()
    draw(grid[0], "start", "five identities of twenty photos each", before, before, labels)
    for axes, (title, (what, terms)) in zip(grid[1:], PANELS.items(), strict=True):
        draw(axes, title, what, moved(terms, before, labels), before, labels)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.945, bottom=0.035, wspace=0.08, hspace=0.32)
    path = Path(__file__).parent / "figures" / "losses.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=170, metadata={"Software": None})


if __name__ == "__main__":
    main()
