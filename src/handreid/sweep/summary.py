"""Summary of a sweep: the best setting, parameter importance, a table; sweep.md and best.yaml."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from handreid.evaluation.tables.format import markdown_table
from handreid.files import write_text
from handreid.messages import markdown as as_markdown
from handreid.metric_table import METRICS
from handreid.recipe import Recipe, dump_recipe
from handreid.recipe.load_sweep import Design
from handreid.sweep.importance import importance
from handreid.sweep.trials import TrialLog, format_value

_ORDER = ("finished", "stopped", "failed", "running")


def write_summary(design: Design, notes: TrialLog) -> dict[str, Any]:
    """Writes sweep.json, sweep.md and best.yaml; returns the content of sweep.json."""
    entries = notes.write()["trials"]
    settings = summarise_settings(entries)
    best = _best(settings, max(1, len(notes.facts["seeds"])))
    content = notes.write(settled=settings, best=best, importance=importance(design.sweep, entries))
    write_text(notes.folder / "sweep.md", markdown(content, str(notes.folder)))
    if best is not None:
        write_text(notes.folder / "best.yaml", dump_recipe(best_recipe(design, best)))
    return content


def summarise_settings(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each setting mean, lowest and highest metric of its finished trials; best mean first, settings without a
    finished trial last.
    """
    rows = []
    for number in sorted({trial["setting"] for trial in trials}):
        group = [trial for trial in trials if trial["setting"] == number]
        values = [trial["value"] for trial in group if trial["state"] == "finished"]
        spread = {"value": float(np.mean(values)), "low": min(values), "high": max(values)} if values else {}
        rows.append(
            {
                "setting": number,
                "parameters": group[0]["parameters"],
                "finished": len(values),
                **({"value": None, "low": None, "high": None} | spread),
                "trials": [trial["number"] for trial in group],
                "folder": next((trial["folder"] for trial in group if trial["state"] == "finished"), None),
            }
        )
    return sorted(rows, key=lambda row: (row["value"] is None, -(row["value"] or 0), row["setting"]))


def best_recipe(design: Design, best: Mapping[str, Any]) -> Recipe:
    """The recipe of the best setting, with the seed of the sweep's recipe: the best seed is not selected."""
    sweep = design.sweep
    keys = {"name": f"{sweep.name}-best", "about": f"best setting of sweep {sweep.name}: {_said(best['parameters'])}"}
    return design.recipe_of(best["parameters"], **keys)


def ordered(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Finished ones first, then stopped ones, each from the highest metric down."""
    return sorted(trials, key=lambda trial: (_ORDER.index(trial["state"]), -(trial["value"] or 0), trial["number"]))


def columns(content: Mapping[str, Any]) -> list[str]:
    seeded = ["seed"] if len(content["seeds"]) > 1 else []
    return ["trial", *content["short_names"].values(), *seeded, _metric(content), "state", "seconds"]


def rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Of the table of trials, in the order of `ordered`."""
    return [
        [
            str(trial["number"]),
            *(format_value(trial["parameters"][name]) for name in content["short_names"]),
            *([str(trial["seed"])] if len(content["seeds"]) > 1 else []),
            percent(trial["value"]),
            describe_setting(trial),
            f"{trial['seconds']:,.0f}",
        ]
        for trial in ordered(content["trials"])
    ]


def describe_setting(trial: Mapping[str, Any]) -> str:
    """How a trial ended, in a few words."""
    match trial["state"]:
        case "finished":
            return (
                f"best at epoch {trial['epoch']} of {trial['epochs']}" if trial["epoch"] else "finished, interpolated"
            )
        case "failed":
            return f"failed: {' '.join((trial['message'] or '').split())}"
        case state:
            return f"{state} at epoch {trial['done']} of {trial['epochs']}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def selection_caveat(content: Mapping[str, Any], folder: str) -> str:
    """What the numbers may be used for, and what comes next."""
    best = content["best"]
    if best is None:
        return "No trial finished, so there is no best setting."
    count = sum(trial["value"] is not None for trial in content["trials"])
    return (
        f"The best of {count} trials was chosen by these validation scores, so its score is optimistic. No "
        "trial used test identities. Test only the one that you choose: handreid evaluate "
        f"{folder}/{best['folder']}"
    )


def markdown(content: Mapping[str, Any], folder: str) -> str:
    about = as_markdown(content["about"])
    lines = [f"# {content['sweep']}", "", *([about, ""] if about else [])]
    best = content["best"]
    if best is not None:
        spread = _spread(best) if best["finished"] > 1 else ""
        lines += [
            f"Best: {as_markdown(_said(best['parameters'], content['short_names']))}, "
            f"{_metric(content)} {percent(best['value'])} "
            f"{spread}".rstrip()
            + "; as a recipe: best.yaml.",
            "",
        ]
    lines += [as_markdown(selection_caveat(content, folder)), ""]
    if len(content["seeds"]) > 1:
        lines += [*_settings(content), ""]
    lines += [*markdown_table(columns(content), rows(content)), ""]
    return "\n".join([*lines, *_importance(content)]) + "\n"


def _settings(content: Mapping[str, Any]) -> list[str]:
    names = content["short_names"]
    title = f"{_metric(content)}, mean over seeds"
    body = [
        [
            *(format_value(row["parameters"][name]) for name in names),
            percent(row["value"]),
            f"{percent(row['low'])} to {percent(row['high'])}" if row["value"] is not None else "",
            f"{row['finished']} of {len(row['trials'])}",
        ]
        for row in content["settled"]
    ]
    return markdown_table([*names.values(), title, "lowest to highest", "finished"], body)


def importance_lines(content: Mapping[str, Any]) -> list[str]:
    """Parameter importance, for the terminal."""
    result, names = content["importance"], {**content["short_names"], "seed": "seed"}
    shares = ", ".join(f"{names[name]} {100 * share:.0f} %" for name, share in result["parameters"].items())
    return [
        *([f"importance (fANOVA): {shares}"] if shares else []),
        *([f"note: {result['remark']}"] if result["remark"] else []),
    ]


def _importance(content: Mapping[str, Any]) -> list[str]:
    result = content["importance"]
    names = {**content["short_names"], "seed": "seed"}
    lines = []
    if result["parameters"]:
        body = [[names[name], f"{100 * share:.0f} %"] for name, share in result["parameters"].items()]
        lines = [*markdown_table(["parameter", "importance"], body), ""]
        lines += [
            f"Importance is each parameter's share of the variance (fANOVA over {result['trials']} finished trials)."
        ]
    return [*lines, *([as_markdown(f"Note: {result['remark']}.")] if result["remark"] else [])]


def _best(settings: Sequence[dict[str, Any]], seeds: int) -> dict[str, Any] | None:
    """The highest mean; settings with failed or stopped seeds only if no setting has all seeds finished."""
    done = [row for row in settings if row["finished"]]
    whole = [row for row in done if row["finished"] == seeds]
    return next(iter([*whole, *done]), None)


def _metric(content: Mapping[str, Any]) -> str:
    name = content["metric"].removeprefix("validation_")
    return f"validation {METRICS[name].title if name in METRICS else name} %"


def _spread(best: Mapping[str, Any]) -> str:
    return f"(mean of {best['finished']} seeds, {percent(best['low'])} to {percent(best['high'])})"


def _said(parameters: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    return ", ".join(f"{(names or {}).get(name, name)} {format_value(value)}" for name, value in parameters.items())
