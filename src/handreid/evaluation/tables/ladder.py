"""A ladder in rows and columns: a row for each rung, and one for each re-ranking of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from handreid.evaluation.compare import Rung
from handreid.evaluation.sections.reranking import remark
from handreid.evaluation.tables.format import against, gained, markdown_table, number, percent
from handreid.messages import markdown as as_markdown
from handreid.metrics.separation import COMPARED, LOWER_IS_BETTER
from handreid.recipe.metrics import METRICS

# metrics that may say no more than another: with one right answer, or one photo of each identity, they are the same
_TWINS = {"r_precision": "rank1", "map_at_r": "rank1", "identity_rank5": "rank5"}


SPACE = {
    "intra": "within",
    "inter": "nearest other",
    "ratio": "ratio",
    "fisher": "Fisher",
    "silhouette": "silhouette",
    "alignment": "alignment",
    "uniformity": "uniformity",
}


SPACE_COLUMNS = (
    "rung",
    *(f"{name} ({'lower' if LOWER_IS_BETTER[key] else 'higher'})" for key, name in SPACE.items()),
    *(f"{SPACE[key]} against the rung below" for key in COMPARED),
)


def columns(rungs: Sequence[Rung]) -> list[str]:
    return ["rung", *metric_columns(_more(rungs)), "rank-1 against the rung below"]


def rows(rungs: Sequence[Rung]) -> list[list[str]]:
    """A row for each rung, and below it one for each re-ranking of it, compared with the rung itself."""
    more = _more(rungs)
    return [row for rung in rungs for row in _rows(rung, more)]


def _rows(rung: Rung, more: Sequence[str]) -> list[list[str]]:
    below = against(rung.below["rank1"]) if rung.below else ""
    return [
        [rung.name, *cells(rung.evaluation["metrics"], more), below],
        *(
            [f"+ {of['name']}", *cells(of["metrics"], more), against(of["against"]["rank1"])]
            for of in rung.evaluation.get("reranked", [])
        ),
    ]


def tell_more(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics beside the usual ones that all evaluations have, and that are not the same as a usual one in all."""
    found = [of["metrics"] for one in evaluations for of in (one, *one.get("reranked", []))]
    return [
        name
        for name, twin in _TWINS.items()
        if all(name in of for of in found) and any(of[name]["value"] != of[twin]["value"] for of in found)
    ]


def _more(rungs: Sequence[Rung]) -> list[str]:
    return tell_more([rung.evaluation for rung in rungs])


def metric_columns(more: Sequence[str]) -> list[str]:
    return [METRICS[name] for name in ("rank1", "rank5", "map", "map_trapezoid", "minp", *more)]


def cells(metrics: Mapping[str, Any], more: Sequence[str] = ()) -> list[str]:
    """The numbers of a row; percent, with 95 % intervals over subjects."""
    return [
        percent(metrics["rank1"]),
        percent(metrics["rank5"], interval=False),
        percent(metrics["map"]),
        percent(metrics["map_trapezoid"], interval=False),
        percent(metrics["minp"], interval=False),
        *(percent(metrics[name], interval=False) for name in more),
    ]


def space_cells(rung: Rung) -> list[str]:
    """One row of the table of spaces; blank where an evaluation has none, or a number is not defined."""
    numbers = rung.evaluation.get("space", {}).get("numbers", {})
    against = (rung.below or {}).get("space", {})
    return [
        rung.name,
        *(number(numbers[key]) if key in numbers else "" for key in SPACE),
        *(gained(against[key]) if key in against else "" for key in COMPARED),
    ]


def space_caption(rung: Rung) -> str:
    """What the numbers of the space are of, in a line; nothing where there are none."""
    space = rung.evaluation.get("space")
    if space is None:
        return ""
    counts = space["counts"]
    alone = f", {counts['alone']} of them with one photo" if counts["alone"] else ""
    return (
        f"distances are Euclidean between embeddings of unit length, of {counts['photos']} test photos of "
        f"{counts['identities']} identities{alone}; lower or higher is better as the columns say; a ratio under 1 is "
        "separable; 95 % intervals over subjects"
    )


def caption(rung: Rung) -> str:
    return caption_of(rung.evaluation)


def caption_of(evaluation: Mapping[str, Any]) -> str:
    """What the numbers are of, in a line."""
    counts, hashes, protocol = evaluation["counts"], evaluation["hashes"], evaluation["protocol"]
    queries = counts["queries"] if isinstance(counts["queries"], int) else max(counts["queries"])
    crossed = ", cameras crossed" if protocol.get("cameras") == "cross" else ""
    left = f" ({counts['unanswerable']:,} of all draws without a right answer)" if counts.get("unanswerable") else ""
    return (
        f"protocol {protocol['name']}, aspects {protocol['aspect']}, identity = {protocol['label']}{crossed}: "
        f"{queries} queries{left} "
        f"of {counts['subjects']} subjects in {counts['gallery']} gallery photos, mean of {counts['draws']} draws; "
        f"percent, 95 % intervals over subjects; manifest {hashes['manifest'][:8]}, draws {hashes['draws'][:8]}"
    )


def reranked_captions(rungs: Sequence[Rung]) -> list[str]:
    """What rows that start with + are, and what has to be known of these galleries; nothing where there are none."""
    if not any(rung.evaluation.get("reranked") for rung in rungs):
        return []
    told = "rows with + re-rank the same embeddings and are compared with the rung without re-ranking"
    return [told, *filter(None, dict.fromkeys(remark(rung.evaluation) for rung in rungs))]


def markdown(rungs: Sequence[Rung]) -> str:
    captions = [caption(rungs[-1]), *reranked_captions(rungs)]
    names = columns(rungs)
    first = markdown_table(names, rows(rungs), _words(len(names), 1))
    parts = [*first, "", as_markdown("; ".join(captions))]
    if any("space" in rung.evaluation for rung in rungs):
        words = _words(len(SPACE_COLUMNS), len(COMPARED))
        spaces = markdown_table(SPACE_COLUMNS, [space_cells(rung) for rung in rungs], words)
        parts += ["", *spaces, "", next(filter(None, map(space_caption, reversed(rungs))))]
    return "\n".join(parts) + "\n"


def _words(columns: int, last: int) -> list[bool]:
    """The first column and the last few hold words."""
    return [number == 0 or number >= columns - last for number in range(columns)]
