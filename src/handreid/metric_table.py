"""The table of all metrics: their names in files and on command lines, and how each number is shown.

Tables, charts, trackers, sweeps and comparisons read it. A number that is not in this table cannot be written.
"""

from dataclasses import dataclass
from typing import Literal

# where a number comes from: "ranking" (the ranking of each query), "separation" (distances between embeddings),
# "prompts" (views named by prompts), or the name of a section in evaluation.json
Group = str


@dataclass(frozen=True)
class MetricInfo:
    """One metric. `twin` is another metric that has the same value if each query has one right answer, or each identity
    one photo in the gallery; tables then omit this one. `unit` is how it is written: shares as percent.
    """

    name: str
    title: str
    group: Group = "ranking"
    about: str = ""
    short: str = ""  # a shorter title for narrow columns
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    digits: int = 1
    unit: Literal["percent", "number"] = "percent"
    twin: str | None = None

    @property
    def better(self) -> str:
        return "higher" if self.higher_is_better else "lower"

    @property
    def column(self) -> str:
        """The column's title, with "higher" or "lower" unless it is a percentage of which higher is better."""
        name = self.short or self.title
        return name if self.unit == "percent" and self.higher_is_better else f"{name} ({self.better})"


_INFINITE = float("inf")


def _distance(
    name: str, title: str, about: str, range_: tuple[float, float], *, short: str = "", lower: bool = False
) -> MetricInfo:
    return MetricInfo(name, title, "separation", about, short, not lower, range_, 3, "number")


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("rank1", "rank-1"),
        MetricInfo("rank5", "rank-5"),
        MetricInfo("rank10", "rank-10"),
        MetricInfo("map", "mAP"),
        MetricInfo("map_trapezoid", "mAP trapezoid"),
        MetricInfo("mrr", "MRR"),
        MetricInfo("minp", "mINP"),
        MetricInfo("r_precision", "R-precision", twin="rank1"),
        MetricInfo("map_at_r", "MAP@R", twin="rank1"),
        MetricInfo("identity_rank1", "identity rank-1"),
        MetricInfo("identity_rank5", "identity rank-5", twin="rank5"),
        MetricInfo("identity_rank10", "identity rank-10"),
        _distance(
            "intra",
            "within an identity",
            "mean distance to the other photos of the identity",
            (0.0, 2.0),
            short="within",
            lower=True,
        ),
        _distance("inter", "nearest other", "distance to the nearest photo of another identity", (0.0, 2.0)),
        _distance(
            "ratio", "ratio", "the first divided by the second; under 1 is separable", (0.0, _INFINITE), lower=True
        ),
        _distance(
            "fisher",
            "Fisher ratio",
            "scatter between identities by scatter within; 1 is none between",
            (0.0, _INFINITE),
            short="Fisher",
        ),
        _distance("silhouette", "silhouette", "-1 to 1; at 0 the next identity is as near as the own", (-1.0, 1.0)),
        _distance("alignment", "alignment", "mean squared distance in pairs of an identity", (0.0, 4.0), lower=True),
        _distance(
            "uniformity", "uniformity", "how evenly the sphere is filled; 0 is collapsed", (-8.0, 0.0), lower=True
        ),
        MetricInfo("view", "view (chance 25)", "prompts"),
        MetricInfo("aspect", "dorsal or palmar (50)", "prompts"),
        MetricInfo("side", "left or right (50)", "prompts"),
    )
}


def metrics_of(group: Group) -> tuple[str, ...]:
    """Names of a group's metrics, in the order in which tables show them."""
    return tuple(name for name, info in METRICS.items() if info.group == group)


def title(name: str) -> str:
    """Raises KeyError for a metric that is not in the table."""
    return METRICS[name].title


RANKING = metrics_of("ranking")
