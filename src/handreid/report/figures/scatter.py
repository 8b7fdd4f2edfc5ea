"""Embeddings as points: a picture for print, and an interactive HTML file that works offline.

With a sheet of thumbnails the HTML shows the photo of the point below the pointer; without one it contains no photo.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from handreid.files import write_atomic
from handreid.report.figures import style
from handreid.report.photos.thumbnails import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 176  # side in pixels of the photo shown at the pointer
_NUMBERED = 8  # from this many joined groups on, groups are numbered


@dataclass(frozen=True, eq=False)
class Cloud:
    """`groups` gives each photo's group, an index into `names` and `colours`; `hovers` are lines of HTML.

    With `joined` a line leads from each photo to the centre of its group, so that compact groups look compact. If there
    are photos without a label (`unlabelled`), they are the last group, which has no centre.
    """

    points: Float[np.ndarray, "photo 2"]
    groups: Int[np.ndarray, " photo"]
    names: list[str]
    colours: list[str]
    views: list[str]
    hovers: list[str]
    joined: bool
    title: str
    subtitle: list[str]
    legend: str
    axes: tuple[str, str]
    true_to_scale: bool  # whether both axes have the same unit
    sheet: Sheet | None = None  # a thumbnail of each photo, in the order of the points
    unlabelled: bool = False

    @property
    def identities(self) -> int:
        """The number of labelled groups."""
        return len(self.names) - self.unlabelled

    @property
    def centres(self) -> Float[np.ndarray, "group 2"]:
        return np.stack([self.points[self.groups == group].mean(axis=0) for group in range(self.identities)])

    @property
    def numbered(self) -> bool:
        return self.joined and self.identities >= _NUMBERED

    def is_unlabelled(self, group: int) -> bool:
        return self.unlabelled and group == self.identities

    def label(self, group: int) -> str:
        number = f"{group + 1:\u2007>2}\u2002"  # spaces as wide as digits
        return number + self.names[group] if self.numbered and not self.is_unlabelled(group) else self.names[group]

    def present_views(self) -> list[str]:
        """The views that occur, in the order of `style.MARKS`."""
        return [view for view in style.MARKS if view in self.views]

    def legend_views(self) -> list[str]:
        """The views for a legend of marks: none if there is only one view, or if the groups are views."""
        views = self.present_views()
        return views if len(views) > 1 and set(self.names) != set(views) else []


def spread_colours(centres: Float[np.ndarray, "group 2"]) -> list[str]:
    """A colour for each group; each in turn takes the colour whose nearest group is farthest away."""
    count = len(style.CATEGORIES)
    assigned = np.arange(len(centres)) % count
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    for group in [*range(len(centres))] * 3:  # three rounds, as early groups are assigned before later ones
        nearest = [distance[group, assigned == colour].min(initial=np.inf) for colour in range(count)]
        assigned[group] = int(np.argmax(nearest))
    return [style.CATEGORIES[colour] for colour in assigned]


def draw_picture(cloud: Cloud, path: Path, caption: str) -> list[Path]:
    """Writes the picture in the format of its suffix, and its caption beside it; returns the files."""
    figure = style.new_figure(cloud.title, cloud.subtitle)
    top = style.top_of(cloud.subtitle)
    axes = figure.add_axes((0.04, 0.05, 0.70, top - 0.05))
    size = float(np.clip(14000 / len(cloud.points), 18, 46))
    for group, name in enumerate(cloud.names):
        _draw_group(axes, cloud, group, size, behind=name == "unknown")
    _finish(axes, cloud)
    if cloud.numbered:
        _number(axes, cloud)
    _legends(axes, cloud)
    return style.save(figure, path, caption)


def _draw_group(axes: "Axes", cloud: Cloud, group: int, size: float, *, behind: bool) -> None:
    members = cloud.groups == group
    colour, centre = cloud.colours[group], cloud.points[members].mean(axis=0)
    unlabelled = cloud.is_unlabelled(group)
    if cloud.joined and not unlabelled:
        for x, y in cloud.points[members]:
            axes.plot([centre[0], x], [centre[1], y], color=colour, lw=0.9, alpha=0.45, zorder=2)
    for view in cloud.present_views():
        of_view = members & np.array([photo_view == view for photo_view in cloud.views])
        x, y = cloud.points[of_view].T
        mark = style.MARKS[view][0]
        axes.scatter(
            x,
            y,
            s=size,
            marker=mark,
            color="white" if unlabelled else colour,
            edgecolor=style.INK if unlabelled else "white",
            linewidth=1.0 if unlabelled else 0.5,
            alpha=0.9,
            zorder=1 if behind else 3,
        )


def _finish(axes: "Axes", cloud: Cloud) -> None:
    axes.margins(0.06)
    if cloud.true_to_scale:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(cloud.axes[0], color=style.QUIET, size=10)
    axes.set_ylabel(cloud.axes[1], color=style.QUIET, size=10)
    for spine in axes.spines.values():
        spine.set_color(style.HAIR)


def _number(axes: "Axes", cloud: Cloud) -> None:
    """Draws each group's number in a badge beside its centre, with a line to it."""
    axes.autoscale_view()
    axes.apply_aspect()  # needed for positions on the page
    axes.autoscale(False)
    middles = axes.transData.transform(cloud.centres)
    badges = axes.transData.inverted().transform(beside(middles))
    for group, (middle, (x, y)) in enumerate(zip(cloud.centres, badges, strict=True)):
        colour = cloud.colours[group]
        axes.plot([middle[0], x], [middle[1], y], color=colour, lw=0.8, ls=":", zorder=4)
        box = {"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": colour, "lw": 1.2}
        text = axes.text(x, y, str(group + 1), size=6.5, color=style.INK, bbox=box, zorder=5)
        text.set_horizontalalignment("center")
        text.set_verticalalignment("center")


def beside(places: Float[np.ndarray, "group 2"], away: float = 17.0) -> Float[np.ndarray, "group 2"]:
    """Positions of badges: `away` from each place, on the side away from the others, and `away` from each other."""
    step = places[:, None] - places[None]
    length = np.linalg.norm(step, axis=2, keepdims=True)
    push = (step / np.maximum(length, 1) ** 3).sum(axis=1)
    moved: Float[np.ndarray, "group 2"] = places + away * push / np.maximum(
        np.linalg.norm(push, axis=1, keepdims=True), 1e-9
    )
    turn = 2 * np.pi * np.arange(len(places)) / len(places)
    for _ in range(200):
        step = moved[:, None] - moved[None]
        length = np.linalg.norm(step, axis=2, keepdims=True)
        same = np.stack([np.cos(turn), np.sin(turn)], axis=1)[:, None]  # directions for badges in the same place
        direction = np.where(length > 1e-6, step / np.maximum(length, 1e-6), same)
        lacking = np.maximum(away - length, 0)
        lacking[np.arange(len(places)), np.arange(len(places))] = 0
        if not lacking.any():
            break
        moved = moved + (direction * lacking / 2).sum(axis=1)
    return moved


def _legends(axes: "Axes", cloud: Cloud) -> None:
    from matplotlib.lines import Line2D

    def mark(colour: str, shape: str, *, hollow: bool = False) -> Line2D:
        edge, face = (style.INK, "white") if hollow else ("white", colour)
        return Line2D([], [], color=face, marker=shape, linestyle="", markersize=7, markeredgecolor=edge)

    plain = {"frameon": False, "alignment": "left", "title_fontproperties": {"size": 10, "weight": "bold"}}
    plain |= {"fontsize": 9, "labelcolor": style.INK, "borderaxespad": 0, "labelspacing": 0.45, "handletextpad": 0.3}
    views = cloud.legend_views()
    shapes = ["o" if views else style.MARKS.get(name, ("o",))[0] for name in cloud.names]
    handles = [
        mark(colour, shape, hollow=cloud.is_unlabelled(group))
        for group, (colour, shape) in enumerate(zip(cloud.colours, shapes, strict=True))
    ]
    labels = [cloud.label(group) for group in range(len(cloud.names))]
    axes.add_artist(
        axes.legend(handles, labels, title=cloud.legend, loc="upper left", bbox_to_anchor=(1.02, 1.0), **plain)
    )
    if views:
        handles = [mark(style.QUIET, style.MARKS[view][0]) for view in views]
        axes.legend(handles, views, title="view", loc="lower left", bbox_to_anchor=(1.02, 0.0), **plain)


def draw_html(cloud: Cloud, path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for group in range(len(cloud.names)):
        figure.add_traces(_traces(cloud, group))
    for view in cloud.legend_views():
        marker = {"symbol": style.MARKS[view][1], "color": style.QUIET, "size": 9}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=view, marker=marker, legend="legend2")
    heading = {"font": {"size": 12, "color": style.INK}}
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "linecolor": style.HAIR, "mirror": True}
    lines = "<br>".join(map(escape, cloud.subtitle))
    title = f"<b>{escape(cloud.title)}</b><br><span style='font-size:13px;color:{style.QUIET}'>{lines}</span>"
    figure.update_layout(
        template="plotly_white",
        font={"family": style.FONT, "color": style.INK, "size": 12},
        title={"text": title, "font": {"size": 20}, "x": 0.02, "xanchor": "left", "y": 0.97, "yanchor": "top"},
        margin={"l": 50, "r": 20, "t": 70 + 20 * len(cloud.subtitle), "b": 50},
        legend={
            "title": {"text": f"<b>{escape(cloud.legend)}</b> (click to hide)", **heading},
            "y": 1,
            "itemsizing": "constant",
        },
        legend2={"title": {"text": "<b>view</b>", **heading}, "y": 0, "yanchor": "bottom", "itemclick": False},
        xaxis={"title": cloud.axes[0], **hidden},
        yaxis={"title": cloud.axes[1], "scaleanchor": "x" if cloud.true_to_scale else None, **hidden},
        hoverlabel={"bgcolor": "white", "align": "left"},
    )
    text = figure.to_html(
        include_plotlyjs=True,
        div_id="embedding",
        default_height="96vh",
        config={"displaylogo": False},
        post_script=_show_photos(cloud.sheet) if cloud.sheet else None,
    )
    head = f"<head><title>{escape(cloud.title)}</title>"
    write_atomic(path, lambda part: part.write_text(text.replace("<head>", head, 1), encoding="utf-8"))


def _show_photos(sheet: Sheet) -> str:
    """JavaScript that shows the thumbnail of the point below the pointer."""
    return f"""
const plot = document.getElementById("{{plot_id}}"), box = document.createElement("div"), side = {_SHOWN};
box.id = "photo";
box.style.cssText = "display:none;position:fixed;pointer-events:none;z-index:9;border:1px solid {style.HAIR};" +
  "border-radius:4px;box-shadow:0 2px 10px rgba(0,0,0,.25);background:url({sheet.url});" +
  "width:" + side + "px;height:" + side + "px;background-size:" + side * {sheet.columns} + "px auto";
document.body.appendChild(box);
plot.on("plotly_hover", (found) => {{
  const at = found.points[0].customdata, x = found.event.clientX, y = found.event.clientY;
  if (at === undefined) return;
  const column = at % {sheet.columns}, row = Math.floor(at / {sheet.columns});
  box.style.backgroundPosition = -side * column + "px " + -side * row + "px";
  box.style.left = Math.min(Math.max(x - side / 2, 4), window.innerWidth - side - 8) + "px";
  box.style.top = (y > side + 40 ? y - side - 26 : y + 30) + "px";
  box.style.display = "block";
}});
plot.on("plotly_unhover", () => {{ box.style.display = "none"; }});
"""


def _traces(cloud: Cloud, group: int) -> list[Any]:
    import plotly.graph_objects as go

    members = np.flatnonzero(cloud.groups == group)
    x, y = cloud.points[members].T
    centre = cloud.points[members].mean(axis=0)
    colour, together = cloud.colours[group], {"legendgroup": str(group)}
    symbols = [style.MARKS[cloud.views[photo]][1] for photo in members]
    unlabelled = cloud.is_unlabelled(group)
    marker = {
        "color": "white" if unlabelled else colour,
        "size": 9,
        "symbol": symbols,
        "line": {"color": style.INK if unlabelled else "white", "width": 1.2 if unlabelled else 0.7},
    }
    hovers = [cloud.hovers[photo] for photo in members]
    photos = go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=escape(cloud.label(group)),
        marker=marker,
        text=hovers,
        hoverinfo="text",
        customdata=members.tolist() if cloud.sheet else None,
        **together,
    )
    if not cloud.joined or unlabelled:
        return [photos]
    # None ends a line
    across, along = (
        [end for value in places for end in (middle, value, None)]
        for places, middle in ((x, centre[0]), (y, centre[1]))
    )
    line = {"color": colour, "width": 1}
    quiet = {"hoverinfo": "skip", "showlegend": False, **together}
    spokes = go.Scatter(x=across, y=along, mode="lines", line=line, opacity=0.45, **quiet)
    number = go.Scatter(x=centre[:1], y=centre[1:], mode="text", text=[f"<b>{group + 1}</b>"], **quiet)
    return [spokes, photos, *([number] if cloud.numbered else [])]
