"""A comparison as tables, which the terminal prints too, as Markdown, CSV, and values for JSON.

* Metrics first, then recipe changes, then cost. Empty rows and columns are left out.
* Recipe changes have a row per path. Up to four runs are columns; more are numbered, and each row says which runs have
  which value, so that twenty runs are still readable.
"""

import csv as table_format
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handreid.evaluation.sections.reranking import rerank_caveat
from handreid.evaluation.tables.format import format_difference, markdown_table
from handreid.evaluation.tables.format import format_number as written
from handreid.evaluation.tables.ladder import (
    caption_of,
    section_cells,
    section_columns,
    section_names,
    section_title,
    tell_more,
)
from handreid.messages import csv_cell, json_text
from handreid.messages import markdown as as_markdown
from handreid.metric_table import title
from handreid.report.compare.runs import Compared, Comparison
from handreid.runs.results import Evaluation, Metric

_AS_COLUMNS = 4  # so many runs are shown as columns


@dataclass(frozen=True)
class Table:
    """`words` says for each column whether it is text rather than numbers; `whole` are columns not to be folded."""

    title: str
    columns: list[str]
    words: list[bool]
    rows: list[list[str]]
    whole: tuple[int, ...] = ()


def tables(comparison: Comparison, *, narrow: bool = False) -> list[Table]:
    """Tables of metrics, other sections, recipe changes and cost, if not empty; `narrow` ones fit in 100 columns."""
    names = section_names([run.evaluation for run in comparison.runs])
    all_tables = [
        metrics_table(comparison, narrow=narrow),
        *(section_table(comparison, name, narrow=narrow) for name in names),
        changes_table(comparison),
        cost_table(comparison),
    ]
    return [table for table in all_tables if table.rows]


def metrics_table(comparison: Comparison, *, narrow: bool = False) -> Table:
    """A row per run, and below it rows that start with + for its re-rankings, compared with the run itself."""
    with_interval = list(dict.fromkeys([comparison.by, "rank1", "map"]))[: 2 if narrow else 3]
    more = () if narrow else ("rank5", "map_trapezoid", "minp", *tell_more([run.evaluation for run in comparison.runs]))
    short = [name for name in more if name not in with_interval]
    columns = ["run", *(title(name) for name in (*with_interval, *short))]
    difference_column = f"{title(comparison.by)} against {comparison.reference}"
    rows = []
    for number, run in enumerate(comparison.runs, 1):
        gained = run.against.get(comparison.by)
        label = _number(comparison, number) + run.name
        rows.append(
            [
                label,
                *_cells(run.evaluation.metrics, with_interval, short),
                format_difference(comparison.by, gained) if gained else "",
            ]
        )
        for way in run.evaluation.reranked or ():
            cells = _cells(way.metrics, with_interval, short)
            rows.append([f"+ {way.name}", *cells, format_difference(comparison.by, way.against[comparison.by])])
    if not any(row[-1] for row in rows):
        return Table("metrics", columns, [True] + [False] * (len(columns) - 1), [row[:-1] for row in rows])
    words = [True] + [False] * (len(columns) - 1) + [True]
    return Table("metrics", [*columns, difference_column], words, rows, whole=tuple(range(1, len(words))))


def section_table(comparison: Comparison, name: str, *, narrow: bool = False) -> Table:
    """A row per run that has the section, with the section's numbers; without intervals if `narrow`."""
    rows = [
        [run.name, *section_cells(name, run.evaluation.number_sections[name].numbers, interval=not narrow)]
        for run in comparison.runs
        if name in run.evaluation.number_sections
    ]
    columns = ["run", *section_columns(name)]
    return Table(section_title(name), columns, [True] + [False] * (len(columns) - 1), rows)


def changes_table(comparison: Comparison) -> Table:
    runs = comparison.runs
    title, paths = "what was changed", list(runs[0].changed)
    if len(runs) > _AS_COLUMNS:
        columns = ["recipe", "value, and the runs that have it"]
        return Table(title, columns, [True, True], _grouped(paths, runs), whole=(0,))
    rows = [[_short(path), *(run.changed[path] for run in runs)] for path in paths]
    return Table(title, ["recipe", *(run.name for run in runs)], [True] * (len(runs) + 1), rows, whole=(0,))


def cost_table(comparison: Comparison) -> Table:
    """A row per run, without columns that are empty for all runs."""
    written: dict[str, Callable[[Compared], str]] = {
        "training": lambda run: "" if run.cost.seconds is None else _duration(run.cost.seconds),
        "photos/s": lambda run: "" if run.cost.photos_per_second is None else f"{run.cost.photos_per_second:,.1f}",
        "peak memory": lambda run: "" if run.cost.peak_memory is None else f"{run.cost.peak_memory / 2**30:.2f} GiB",
        "learning": lambda run: "" if run.cost.learning is None else _count(run.cost.learning),
        "of parameters": lambda run: "" if run.cost.parameters is None else _count(run.cost.parameters),
    }
    columns = {name: [write(run) for run in comparison.runs] for name, write in written.items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    if not columns:
        return Table("cost", ["run"], [True], [])
    rows = [[run.name, *cells] for run, *cells in zip(comparison.runs, *columns.values(), strict=True)]
    return Table("cost", ["run", *columns], [True] + [False] * len(columns), rows)


def captions(comparison: Comparison, *, tables: bool = True, differences: bool = True) -> list[str]:
    """Lines that say what the numbers are, how they were compared, and what a reader has to know.

    Without `tables`, lines that concern only tables are left out; without `differences`, those on differences.
    """
    runs = comparison.runs
    lines = [caption_of(comparison[comparison.reference].evaluation)]
    if differences and any(run.against for run in runs):
        lines.append(
            f"differences are paired over subjects, with {100 * comparison.confidence:g} % intervals "
            f"({comparison.corrected}); better or worse: the interval is entirely on one side of 0"
        )
    if tables and any(run.evaluation.reranked for run in runs):
        lines.append(
            "rows with + re-rank the same embeddings and are compared with the same run's plain ranking, uncorrected"
        )
        lines += filter(None, dict.fromkeys(rerank_caveat(run.evaluation) for run in runs))
    if tables and any(run.cost.seconds is not None for run in runs):
        lines.append("training is the time of the epochs, without validation; photos/s those of the last stage")
    return [*lines, *(f"note: {note}" for note in comparison.notes)]


def markdown(comparison: Comparison) -> str:
    """Tables for a README or a paper's appendix, with captions below."""
    parts = [
        "\n".join(
            [
                f"**{table.title[0].upper()}{table.title[1:]}**",
                "",
                *markdown_table(table.columns, table.rows, table.words),
            ]
        )
        for table in tables(comparison)
    ]
    return "\n\n".join([*parts, "\n".join(f"* {as_markdown(line)}" for line in captions(comparison))]) + "\n"


def csv(comparison: Comparison) -> str:
    """A row per run and a column per number: shares in 0 to 1, seconds, bytes; then the recipe paths that differ."""
    rows = [_flat_row(comparison, run) for run in comparison.runs]
    written = io.StringIO()
    writer = table_format.DictWriter(
        written, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows([{key: csv_cell(value) for key, value in row.items()} for row in rows])
    return written.getvalue()


def content(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as values for JSON, without the ranks of the queries."""
    fields = {"recipe", "protocol", "metrics", "counts", "hashes", "flip_tta"}
    return {
        "by": comparison.by,
        "reference": comparison.reference,
        "confidence": comparison.confidence,
        "corrected": comparison.corrected,
        "notes": comparison.notes,
        "runs": [
            {
                "name": run.name,
                "folder": str(run.folder),
                **run.evaluation.model_dump(mode="json", include=fields),
                "sections": _numbers(run.evaluation),
                "reranked": [
                    way.model_dump(mode="json", exclude={"ranks", "identity_ranks"})
                    for way in run.evaluation.reranked or ()
                ],
                "changed": run.changed,
                "against": {name: difference.model_dump(mode="json") for name, difference in run.against.items()},
                "cost": asdict(run.cost),
            }
            for run in comparison.runs
        ],
    }


def as_json(comparison: Comparison) -> str:
    return json_text(content(comparison)) + "\n"


def _cells(metrics: Mapping[str, Metric], with_interval: Sequence[str], short: Sequence[str]) -> list[str]:
    return [*(written(n, metrics[n]) for n in with_interval), *(written(n, metrics[n], interval=False) for n in short)]


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of each section, without the section's other content."""
    return {
        name: {metric: number.model_dump(mode="json") for metric, number in section.numbers.items()}
        for name, section in evaluation.number_sections.items()
    }


def _number(comparison: Comparison, number: int) -> str:
    """The run's number, if the table of recipe changes refers to runs by number."""
    return f"{number}. " if len(comparison.runs) > _AS_COLUMNS and comparison.runs[0].changed else ""


def _grouped(paths: Sequence[str], runs: Sequence[Compared]) -> list[list[str]]:
    rows = []
    for path in paths:
        having: dict[str, list[int]] = {}
        for number, run in enumerate(runs, 1):
            if run.changed[path]:
                having.setdefault(run.changed[path], []).append(number)
        rows.append([_short(path), "; ".join(f"{text} ({_ranges(numbers)})" for text, numbers in having.items())])
    return rows


def _short(path: str) -> str:
    return path.removeprefix("stages.")


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 5 as 1-3, 5."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts)


def _flat_row(comparison: Comparison, run: Compared) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.name, "folder": str(run.folder), "recipe": run.recipe.name}
    for name, metric in run.evaluation.metrics.items():
        row |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    for section in run.evaluation.number_sections.values():
        row |= {name: number.value for name, number in section.numbers.items()}
    row["reference"] = comparison.reference
    for name in run.evaluation.metrics:
        gained = run.against.get(name)
        row |= {f"{name}_difference{end}": getattr(gained, key, None) for key, end in _ENDS.items()}
    row |= asdict(run.cost)
    row |= {f"{key}_hash": getattr(run.evaluation.hashes, key) for key in ("manifest", "draws", "model")}
    return row | {f"recipe.{path}": text for path, text in run.changed.items()}


_ENDS = {"value": "", "low": "_low", "high": "_high", "verdict": "_verdict"}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _count(number: int) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)
