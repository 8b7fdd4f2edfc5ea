"""Draws figures/prompts.png: the two stages of prompt learning, what learns in each, and what is handed over.

    python docs/prompts_figure.py

The same picture on every run.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).parent / "figures" / "prompts.png"
INK, QUIET = "#222222", "#666666"
LOOK = {  # face, edge, line style
    "data": ("#FFFFFF", "#888888", "-"),
    "frozen": ("#E4EAF0", "#5B7C99", "-"),
    "learns": ("#FCE3CF", "#D55E00", "-"),
    "kept": ("#DDF0E8", "#009E73", "--"),
    "loss": ("#FFFFFF", "#222222", "-"),
}
Box = tuple[float, float, float, float]


def main() -> None:
    figure = Figure(figsize=(11, 6.9), facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = figure.add_axes((0.02, 0.51, 0.96, 0.43)), figure.add_axes((0.02, 0.01, 0.96, 0.43))
    for axes, title, words in (
        (top, "3a  learn_prompts", "words are found for every identity; both towers stay as they are"),
        (bottom, "3b  fine_tune", "the texts stay as they are and guide the image tower"),
    ):
        axes.set(xlim=(-0.5, 110), ylim=(-5, 30))
        axes.set_axis_off()
        axes.text(0, 32.4, title, size=14, weight="bold", color=INK, family="monospace")
        axes.text(26, 32.4, words, size=11, color=QUIET)
    learning(top)
    guided(bottom)
    legend(bottom)
    figure.savefig(OUT, dpi=110, metadata={"Software": None})


def learning(axes: Axes) -> None:
    photos = box(axes, "data", (0, 18, 14, 9), "training\nphotos")
    image = box(axes, "frozen", (21, 18, 17, 9), "image tower", "once")
    cached = box(axes, "kept", (45, 18, 20, 9), "joint features", "cached, no augmentation")
    sentence = box(
        axes, "learns", (0, 3, 31, 9.5), "A photo of a [v1 v2 v3 v4]\ndorsal hand.", "a context per identity"
    )
    text = box(axes, "frozen", (38, 3, 17, 9), "text tower", "every step")
    texts = box(axes, "data", (62, 3, 15, 9), "text features")
    loss = box(axes, "loss", (84, 9.5, 25, 11), "image_to_text\n+ text_to_image", "supervised contrastive")
    for pair in ((photos, image), (image, cached), (sentence, text), (text, texts)):
        arrow(axes, *pair)
    arrow(axes, cached, loss)
    arrow(axes, texts, loss)
    colour = LOOK["learns"][1]
    axes.plot([96.5, 96.5, 15.5], [9.2, -0.6, -0.6], color=colour, linestyle=":", linewidth=1.6)
    axes.annotate("", (15.5, 2.8), (15.5, -0.8), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4})
    axes.text(56, -2.6, "gradient, through the frozen text tower", size=9, color=colour, ha="center")


def guided(axes: Axes) -> None:
    photos = box(axes, "data", (0, 18, 14, 9), "photos", "P x K, augmented")
    image = box(axes, "learns", (21, 18, 17, 9), "image tower", "every step")
    head = box(axes, "learns", (45, 18, 20, 9), "BNNecks,\nclassifiers")
    joint = box(axes, "data", (45, 4, 20, 9), "joint features")
    box(axes, "kept", (0, 4, 31, 9), "text features of all identities", "last.safetensors of 3a")
    classify = box(axes, "loss", (84, 18, 25, 9), "0.25 cross_entropy\n+ triplet", "penultimate, pooled, joint")
    match = box(axes, "loss", (84, 4, 25, 9), "image_to_text", "which identity's text is nearest?")
    for pair in ((photos, image), (image, head), (head, classify), (joint, match)):
        arrow(axes, *pair)
    elbow(axes, (38, 20.5), (45, 10.5))
    axes.add_patch(
        FancyArrowPatch(
            (31.3, 5.2),
            (83.6, 5.2),
            connectionstyle="arc3,rad=0.13",
            arrowstyle="-|>",
            mutation_scale=12,
            color=INK,
            linewidth=1.2,
        )
    )


def legend(axes: Axes) -> None:
    names = (("learns", "learns"), ("frozen", "frozen"), ("kept", "computed once, kept"), ("loss", "loss"))
    for number, (look, name) in enumerate(names):
        left = 2 + 27 * number
        box(axes, look, (left, -4.5, 4, 2.6), "")
        axes.text(left + 5, -3.2, name, size=9.5, color=QUIET, va="center")


def box(axes: Axes, look: str, at: Box, text: str, below: str = "") -> Box:
    x, y, width, height = at
    face, edge, line = LOOK[look]
    shape = "square,pad=0" if look == "loss" else "round,pad=0,rounding_size=1"
    patch = FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, linestyle=line)
    patch.set_linewidth(1.5)
    axes.add_patch(patch)
    lift = 1.5 if below else 0
    axes.text(
        x + width / 2, y + height / 2 + lift, text, size=11, color=INK, ha="center", va="center", linespacing=1.25
    )
    if below:
        axes.text(x + width / 2, y + 1.7, below, size=8.5, color=QUIET, ha="center", va="center")
    return at


def arrow(axes: Axes, start: Box, end: Box) -> None:
    """From the middle of a box's right side to the left side of another, at the nearest height of the latter."""
    x, y, width, height = start
    level = y + height / 2
    low, high = end[1] + 2, end[1] + end[3] - 2
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": INK, "linewidth": 1.2}
    axes.add_patch(FancyArrowPatch((x + width + 0.2, level), (end[0] - 0.3, min(max(level, low), high)), **style))


def elbow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "color": INK, "linewidth": 1.2}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle="arc3,rad=-0.05", **style))


if __name__ == "__main__":
    main()
