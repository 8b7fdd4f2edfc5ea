"""Evaluations and ladders as tables on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handreid.cli import output

if TYPE_CHECKING:
    from handreid.evaluation.compare import Rung
    from handreid.runs.results import Evaluation, InferenceModes, PromptResult, SectionResult


def print_ladder(rungs: "Sequence[Rung]", out: Path, page: Path | None) -> None:
    from handreid.evaluation.tables import ladder

    for rung in rungs:
        if rung.evaluation.prompts:
            _print_prompts(rung.name, rung.evaluation.prompts)
    output.table("the ladder", ladder.columns(rungs), ladder.format_rows(rungs))
    for line in ladder.captions(rungs):
        output.echo(line)
    evaluations = [rung.evaluation for rung in rungs]
    for name in ladder.section_names(evaluations):
        # folded, as nine columns of twenty characters are too wide
        output.table(ladder.section_title(name), *ladder.section_table(rungs, name), fold=(" [",))
        _echo(ladder.section_caption(evaluations, name))
    written = [out / "ladder.md", out / "ladder.json", *([page] if page else [])]
    output.echo(f"written to {', '.join(map(str, written[:-1]))} and {written[-1]}")


def print_evaluation(evaluation: "Evaluation") -> None:
    from handreid.evaluation.tables.format import format_number
    from handreid.evaluation.tables.ladder import caption_of
    from handreid.metric_table import metrics_of, title

    parts = {"all": evaluation.metrics}
    if len(evaluation.views) > 1:
        parts |= {view: part.metrics for view, part in evaluation.views.items()}
    rows = [
        [title(name), *(format_number(name, metrics[name]) for metrics in parts.values())]
        for name in metrics_of("ranking")
        if name in evaluation.metrics
    ]
    output.table(evaluation.recipe, ("queries", *parts), rows)
    output.echo(caption_of(evaluation))
    for note in evaluation.notes:
        output.echo(f"note: {note}")
    _print_reranked(evaluation)
    for name, section in evaluation.number_sections.items():
        _print_section(name, section)
    if evaluation.prompts:
        _print_prompts(evaluation.recipe, evaluation.prompts)
    if evaluation.inference:
        _print_modes(evaluation.inference)


def _print_modes(modes: "InferenceModes") -> None:
    from handreid.evaluation.tables.format import format_difference, format_number
    from handreid.metric_table import title

    metrics = ("rank1", "map")
    rows = [
        (
            f"{name}{' (the recipe)' if name == modes.chosen else ''}",
            *(format_number(metric, mode.metrics[metric]) for metric in metrics),
            f"{mode.cost.milliseconds_per_photo:.2f}",
            f"{mode.cost.parameters / 1e6:.1f} M",
        )
        for name, mode in (("composed", modes.composed), ("fixed", modes.fixed))
    ]
    columns = ("inference", *map(title, metrics), "ms a photo", "parameters")
    output.table("inference with a sentence per photo, or one sentence for all", columns, rows)
    for metric in metrics:
        output.echo(f"composed against fixed, {title(metric)}: {format_difference(metric, modes.difference[metric])}")


def _print_reranked(evaluation: "Evaluation") -> None:
    from handreid.evaluation.sections.reranking import rerank_caveat
    from handreid.evaluation.tables.format import format_difference
    from handreid.evaluation.tables.ladder import format_cells, metric_columns, tell_more
    from handreid.metric_table import title

    if not evaluation.reranked:
        return
    more, gained = tell_more([evaluation]), ("rank1", "map")
    rows = [["plain", *format_cells(evaluation.metrics, more), "", ""]]
    for way in evaluation.reranked:
        gains = [format_difference(metric, way.against[metric]) for metric in gained]
        rows.append([way.name, *format_cells(way.metrics, more), *gains])
    columns = ("ranking", *metric_columns(more), *(f"{title(metric)} gain" for metric in gained))
    output.table("re-ranked", columns, rows)
    if rerank_caveat(evaluation):
        output.echo(f"note: {rerank_caveat(evaluation)}")


def _print_section(name: str, section: "SectionResult") -> None:
    """Prints a section that declares numbers."""
    from handreid.evaluation.tables.format import format_number
    from handreid.evaluation.tables.ladder import section_title
    from handreid.metric_table import METRICS

    numbers = [(METRICS[metric], value) for metric, value in section.numbers.items() if metric in METRICS]
    rows = [(info.title, info.about, info.better, format_number(info.name, value) or "-") for info, value in numbers]
    output.table(section_title(name), ("measure", "meaning", "better", "value"), rows, left=3)
    for reason in section.remarks:
        output.echo(f"note: {reason}")
    _echo(section.caption)


def _print_prompts(name: str, prompts: "Sequence[PromptResult]") -> None:
    from handreid.evaluation.tables.format import format_number
    from handreid.metric_table import metrics_of, title

    metrics = metrics_of("prompts")
    rows = [
        (
            entry.template or "mean of all prompts",
            *(format_number(metric, entry.accuracy[metric]) for metric in metrics),
        )
        for entry in prompts
    ]
    columns = ("prompt", *map(title, metrics))
    output.table(f"{name}: zero-shot accuracy by prompt on {prompts[0].photos} test photos", columns, rows)


def _echo(line: str) -> None:
    if line:
        output.echo(line)
