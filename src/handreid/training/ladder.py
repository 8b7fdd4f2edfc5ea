"""Rung after rung on the same photos: train, evaluate, and say whether each beats the one below.

A rung that is finished, with the same recipe and data, is not run again; one that was stopped goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handreid.errors import HandreidError, RecipeError, RunError
from handreid.evaluation.compactness import COMPARED, LOWER_IS_BETTER, compare_spaces
from handreid.evaluation.intervals import differences, verdict
from handreid.evaluation.protocol import QueryScores, scores_of_ranks
from handreid.files import write_json, write_text
from handreid.messages import markdown as as_markdown
from handreid.progress import Progress, Silent
from handreid.recipe import Recipe, Tracker
from handreid.recipe.metrics import METRICS
from handreid.recipe.reading import check_names
from handreid.training.assess import evaluate
from handreid.training.records import LADDER_FORMAT, read_evaluation
from handreid.training.reranked import remark
from handreid.training.runs import open_run
from handreid.training.tracking.memory import trackers_of
from handreid.training.tracking.places import check_installed
from handreid.training.tracking.sender import Sender
from handreid.training.train import check, train


@dataclass(frozen=True)
class Rung:
    name: str
    evaluation: dict[str, Any]
    # per metric: difference to the rung below, its interval, verdict; `space` holds those of the space
    below: dict[str, Any] | None


def climb(
    recipes: Sequence[Recipe],
    data: Path | None,
    out: Path,
    *,
    progress: Progress | None = None,
    done: Callable[[Rung], None] = lambda _: None,
    every: bool = True,
    track: Sequence[Tracker] | None = None,
) -> list[Rung]:
    """Runs in `out/<recipe name>`, ladder.json and ladder.md in `out`.

    A rung that cannot be built, such as one whose manifest lacks what it asks for, is known before the first begins:
    an error, or without `every` left out with a note. Raises RunError for two recipes of one name.
    """
    progress = progress or Silent()
    check_names(recipes)
    check_installed(tracker for recipe in recipes for tracker in trackers_of(track, recipe))
    recipes = _buildable(recipes, data, out, None if every else progress.say)
    rungs: list[Rung] = []
    with Sender(progress) as sender:
        for number, recipe in enumerate(recipes, 1):
            progress.say(f"rung {number} of {len(recipes)}: {recipe.name}")
            run = train(recipe, data, out / recipe.name, resume=True, progress=progress, track=track, sender=sender)
            if not run.evaluation.exists():
                told = trackers_of(track, recipe)
                evaluate(open_run(run.folder), data=data, progress=progress, track=told, sender=sender)
            found = read_evaluation(run.evaluation)
            rungs.append(Rung(recipe.name, found, compare(found, rungs[-1].evaluation) if rungs else None))
            done(rungs[-1])
    write_json(out / "ladder.json", {"format": LADDER_FORMAT, "rungs": [_entry(rung) for rung in rungs]})
    write_text(out / "ladder.md", markdown(rungs))
    return rungs


def _buildable(
    recipes: Sequence[Recipe], data: Path | None, out: Path, say: Callable[[str], None] | None
) -> list[Recipe]:
    """All of them; without those that make no sense here, if there is somebody to tell of it."""
    kept = []
    for recipe in recipes:
        try:
            if not (out / recipe.name / "run.json").exists():
                check(recipe, data)
        except HandreidError as error:
            if say is None or not isinstance(error, RecipeError):
                raise type(error)(f"rung {recipe.name}: {error}; choose others with --rungs") from None
            say(f"note: rung {recipe.name} is left out: {error}")
        else:
            kept.append(recipe)
    return kept


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, resamples: int = 10_000) -> dict[str, Any]:
    """Paired difference of two evaluations on the same draws, over subjects. Raises RunError when they are not."""
    if ours["hashes"]["draws"] != theirs["hashes"]["draws"]:
        raise RunError(
            f"{ours['recipe']} and {theirs['recipe']} were evaluated on different draws "
            f"({ours['hashes']['draws'][:8]} and {theirs['hashes']['draws'][:8]}): they cannot be compared"
        )
    mine, other = read_scores(ours), read_scores(theirs)
    people = np.unique([ours["subjects"][row] for row in mine.rows], return_inverse=True)[1]
    both = [name for name in mine.metrics if name in other.metrics]  # an older evaluation has fewer
    measured = [{name: of.metrics[name] for name in both} for of in (mine, other)]
    found = differences(measured[0], measured[1], people, mine.draws, resamples=resamples)
    differing = {k: {"value": d.value, "low": d.low, "high": d.high, "verdict": verdict(d)} for k, d in found.items()}
    if not _same_photos(ours, theirs):
        return differing
    return {**differing, "space": compare_spaces(ours["space"], theirs["space"], resamples=resamples)}


def _same_photos(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether both spaces are of the same photos; evaluations of older versions have none, or counted copies."""
    spaces = [of["space"]["subjects"] for of in (ours, theirs) if "space" in of]
    return len(spaces) == 2 and all(spaces[0][key] == spaces[1][key] for key in ("name", "photos"))


def read_scores(evaluation: Mapping[str, Any]) -> QueryScores:
    """Scores per query from evaluation.json; rows are positions in its `photos`.

    Without the metrics of identities where an older version wrote it.
    """
    draws = evaluation["draws"]
    known = all("identity_ranks" in draw for draw in draws)
    return scores_of_ranks(
        np.concatenate([np.array(draw["query"], np.int64) for draw in draws]),
        np.repeat(np.arange(len(draws)), [len(draw["query"]) for draw in draws]),
        [ranks for draw in draws for ranks in draw["ranks"]],
        [rank for draw in draws for rank in draw["identity_ranks"]] if known else None,
    )


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
        *(_gained(against[key]) if key in against else "" for key in COMPARED),
    ]


def number(of: Mapping[str, Any]) -> str:
    """Three digits, with the interval if there is one; nothing where the number is not defined."""
    if of["value"] is None:
        return ""
    bounds = "" if of["low"] is None else f" [{_digits(of['low'])}, {_digits(of['high'])}]"
    return _digits(of["value"]) + bounds


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


def percent(metric: Mapping[str, float], *, interval: bool = True) -> str:
    bounds = f" [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]" if interval else ""
    return f"{100 * metric['value']:.1f}{bounds}"


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
    told = "rows with + rank the same embeddings anew, and are compared with the same rung without"
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


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[bool]) -> list[str]:
    """The lines of a table in Markdown; columns that hold no words are numbers, to the right."""
    rule = "|" + "".join("---|" if word else "---:|" for word in words)
    told = [[as_markdown(cell) for cell in row] for row in (columns, *rows)]
    head, *body = ["| " + " | ".join(row) + " |" for row in told]
    return [head, rule, *body]


def _words(columns: int, last: int) -> list[bool]:
    """The first column and the last few hold words."""
    return [number == 0 or number >= columns - last for number in range(columns)]


def against(difference: Mapping[str, Any]) -> str:
    bounds = f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]"
    return f"{difference['verdict']} {100 * difference['value']:+.1f} {bounds}"


def _gained(difference: Mapping[str, Any]) -> str:
    bounds = f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"{difference['verdict']} {difference['value']:+.3f} {bounds}"


def _digits(value: float) -> str:
    """Three decimals; fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _entry(rung: Rung) -> dict[str, Any]:
    kept = ("recipe", "protocol", "metrics", "counts", "aspects", "space", "hashes", "prompts", "reranked")
    entry = {k: rung.evaluation[k] for k in kept if k in rung.evaluation}
    if "reranked" in entry:
        entry["reranked"] = [{k: v for k, v in of.items() if k != "ranks"} for of in entry["reranked"]]
    return {**entry, "below": rung.below}
