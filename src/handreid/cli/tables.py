"""Evaluations and ladders as people read them on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handreid.cli import output

if TYPE_CHECKING:
    from handreid.evaluation.compare import Rung

_SPACE = {
    "intra": ("within an identity", "mean distance to the other photos of the identity", "lower"),
    "inter": ("nearest other", "distance to the nearest photo of another identity", "higher"),
    "ratio": ("ratio", "the first divided by the second; under 1 is separable", "lower"),
    "fisher": ("Fisher ratio", "scatter between identities divided by scatter within; 1 means none between", "higher"),
    "silhouette": ("silhouette", "-1 to 1; at 0 the next identity is as near as the photo's own", "higher"),
    "alignment": ("alignment", "mean squared distance in pairs of an identity", "lower"),
    "uniformity": ("uniformity", "how evenly embeddings fill the sphere; 0 means they have collapsed", "lower"),
}


def print_ladder(rungs: "Sequence[Rung]", out: Path, page: Path | None) -> None:
    from handreid.evaluation.tables import ladder as of

    for rung in rungs:
        if rung.evaluation.get("prompts"):
            _print_prompts(rung.name, rung.evaluation["prompts"])
    output.table("the ladder", of.columns(rungs), of.rows(rungs))
    for line in (of.caption(rungs[-1]), *of.reranked_captions(rungs)):
        output.echo(line)
    if any("space" in rung.evaluation for rung in rungs):
        rows = [of.space_cells(rung) for rung in rungs]
        output.table("separation", of.SPACE_COLUMNS, rows, fold=(" [",))  # nine columns of twenty signs are too wide
        output.echo(next(filter(None, map(of.space_caption, reversed(rungs)))))
    written = [out / "ladder.md", out / "ladder.json", *([page] if page else [])]
    output.echo(f"written to {', '.join(map(str, written[:-1]))} and {written[-1]}")


def print_evaluation(found: dict[str, Any]) -> None:
    from handreid.evaluation.compare import Rung
    from handreid.evaluation.tables.format import percent
    from handreid.evaluation.tables.ladder import caption
    from handreid.recipe.metrics import METRICS

    parts = {"all": found, **found["aspects"]} if len(found["aspects"]) > 1 else {"all": found}
    rows = [
        [name, *(percent(part["metrics"][key]) for part in parts.values())]
        for key, name in METRICS.items()
        if key in found["metrics"]
    ]
    output.table(found["recipe"], ("queries", *parts), rows)
    output.echo(caption(Rung(found["recipe"], found, None)))
    for note in found["notes"]:
        output.echo(f"note: {note}")
    _print_reranked(found)
    _print_space(found)
    if found.get("prompts"):
        _print_prompts(found["recipe"], found["prompts"])
    if found.get("inference"):
        _print_modes(found["inference"])


def _print_modes(modes: dict[str, Any]) -> None:
    from handreid.evaluation.tables.format import percent

    rows = [
        (
            f"{name}{' (the recipe)' if name == modes['chosen'] else ''}",
            *(percent(modes[name]["metrics"][key]) for key in ("rank1", "map")),
            f"{modes[name]['cost']['milliseconds_per_photo']:.2f}",
            f"{modes[name]['cost']['parameters'] / 1e6:.1f} M",
        )
        for name in ("composed", "fixed")
    ]
    output.table(
        "inference with a sentence per photo, or one sentence for all",
        ("inference", "rank-1", "mAP", "ms a photo", "parameters"),
        rows,
    )
    found = modes["difference"]
    for name, key in (("rank-1", "rank1"), ("mAP", "map")):
        one = found[key]
        low, value, high = (f"{100 * one[k]:+.1f}" for k in ("low", "value", "high"))
        output.echo(f"composed against fixed, {name}: {one['verdict']} {value} [{low}, {high}]")


def _print_reranked(found: dict[str, Any]) -> None:
    from handreid.evaluation.sections.reranking import remark
    from handreid.evaluation.tables.format import against
    from handreid.evaluation.tables.ladder import cells, metric_columns, tell_more

    if not found.get("reranked"):
        return
    more = tell_more([found])
    rows = [["plain", *cells(found["metrics"], more), "", ""]]
    for of in found["reranked"]:
        gained = of["against"]
        rows.append([of["name"], *cells(of["metrics"], more), against(gained["rank1"]), against(gained["map"])])
    columns = ("ranking", *metric_columns(more), "rank-1 gain", "mAP gain")
    output.table("re-ranked", columns, rows)
    if remark(found):
        output.echo(f"note: {remark(found)}")


def _print_space(found: dict[str, Any]) -> None:
    from handreid.evaluation.compare import Rung
    from handreid.evaluation.tables.format import number
    from handreid.evaluation.tables.ladder import space_caption

    numbers = found["space"]["numbers"]
    rows = [(name, about, better, number(numbers[key]) or "-") for key, (name, about, better) in _SPACE.items()]
    output.table("separation", ("measure", "meaning", "better", "value"), rows, left=3)
    reasons = {of["why"] for of in numbers.values() if "why" in of}
    for reason in sorted(reasons):
        output.echo(f"note: {reason}")
    output.echo(space_caption(Rung(found["recipe"], found, None)))


def _print_prompts(name: str, prompts: Sequence[dict[str, Any]]) -> None:
    from handreid.evaluation.tables.format import percent

    rows = [
        (
            entry["template"] or "mean of all prompts",
            *(percent(entry["accuracy"][k]) for k in ("view", "aspect", "side")),
        )
        for entry in prompts
    ]
    columns = ("prompt", "view (chance 25)", "dorsal or palmar (50)", "left or right (50)")
    output.table(f"{name}: zero-shot accuracy by prompt on {prompts[0]['photos']} test photos", columns, rows)
