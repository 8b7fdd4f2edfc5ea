"""The page about a sweep: its trials, parameter importance, training of the best trials. It has no test photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handreid.files import check_writable, write_atomic
from handreid.metric_table import title
from handreid.recipe import Recipe, dump_recipe
from handreid.report.figures import style
from handreid.report.figures.sweep import caption, draw
from handreid.report.page import charts, data_card, summary_text
from handreid.report.page.interval_chart import dots
from handreid.report.page.rendering import rendered
from handreid.report.photos.thumbnails import as_url
from handreid.runs.folder import Run
from handreid.runs.records import read_sweep
from handreid.runs.results import Number

_CURVES = 8  # trials, the best


@dataclass(frozen=True)
class _Trial:
    name: str
    folder: Path
    recipe: Recipe


def write_sweep_report(
    folder: Path, out: Path, *, columns: Sequence[str], rows: Sequence[Sequence[str]], caution: str
) -> Path:
    """Writes the page about a sweep that has ended. `columns` and `rows` are its table; `caution` says what its numbers
    may be used for. Raises RunError if the folder holds no sweep.
    """
    check_writable(out, (".html",))
    content = read_sweep(folder, ended=True)
    best = content["best"]
    trials = _best_trials(folder, content)
    best_name = trials[0].name if trials else ""
    data: dict[str, Any] = {"palette": list(style.CATEGORIES), "panels": 0, "map": None, "cmc": []}
    training = charts.training(trials, best_name)
    if training is not None:
        data["training"], data["panels"] = training.pop("data"), training["panels"]
        training["caption"] += f" Shown are the {len(trials)} trials that were trained longest."
    page = {
        "title": f"Sweep: {content['sweep']}",
        "lede": caution,
        "facts": _facts(content),
        "story": _story(content, trials, best),
        "abouts": [],
        "notes": [],
        "sweep": _sweep(content, columns, rows),
        "training": training,
        "cards": data_card.data_cards(trials),
        "environment": data_card.environments(trials),
        "recipes": [(trial.name, dump_recipe(trial.recipe)) for trial in trials],
    }
    text = rendered(page, data)
    write_atomic(out, lambda part: part.write_text(text, encoding="utf-8"))
    return out


def _best_trials(folder: Path, content: Mapping[str, Any]) -> list[_Trial]:
    done = sorted(
        (trial for trial in content["trials"] if trial["value"] is not None), key=lambda trial: -trial["value"]
    )
    folders = [folder / trial["folder"] for trial in done[:_CURVES]]
    return [_Trial(path.name, path, Run(path).recipe) for path in folders]


def _facts(content: Mapping[str, Any]) -> list[dict[str, str]]:
    best, trials = content["best"], content["trials"]
    count = {state: sum(trial["state"] == state for trial in trials) for state in ("finished", "stopped", "failed")}
    metric = title(content["metric"].removeprefix("validation_"))
    return [
        *(
            [{"name": f"validation {metric}", "value": f"{100 * best['value']:.1f} %", "note": "of the best setting"}]
            if best
            else []
        ),
        *({"name": state, "value": str(number), "note": "trials"} for state, number in count.items() if number),
        {"name": "parameters", "value": str(len(content["short_names"])), "note": "varied"},
    ]


def _story(content: Mapping[str, Any], trials: Sequence[_Trial], best: Mapping[str, Any] | None) -> list[str]:
    about = content["about"] or content["sweep"]
    varied = ", ".join(content["short_names"].values())
    sentences = [f"{about[:1].upper()}{about[1:]}. {len(content['trials'])} trials vary {varied}."]
    best_trial = next(
        (trial for trial in trials if best is not None and trial.folder.name in str(best["folder"])), None
    )
    return [
        *sentences,
        *([f"The best setting: {summary_text.describe_run(best_trial.recipe, None)}"] if best_trial else []),
    ]


def _sweep(content: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    importance = content["importance"]
    names = {**content["short_names"], "seed": "seed"}
    shares = [
        (names[name], [Number(value=share, low=None, high=None)], None)
        for name, share in importance["parameters"].items()
    ]
    picture = style.as_png(draw(content)) if any(trial["value"] is not None for trial in content["trials"]) else None
    return {
        "sentence": "Every trial is an ordinary run folder. No trial used test identities.",
        "chart": dots(shares, digits=0, least=0.0) if shares else None,
        "remark": importance["remark"],
        "picture": None if picture is None else as_url(picture, "image/png"),
        "alt": caption(content),
        "columns": columns,
        "rows": rows,
    }
