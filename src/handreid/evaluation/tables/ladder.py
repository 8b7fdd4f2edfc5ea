"""A ladder as a table: a row for each rung, and one for each re-ranking of it; with the range of the training seeds,
where there are several.
"""

from collections.abc import Mapping, Sequence

from handreid.evaluation.compare import Rung
from handreid.evaluation.sections.reranking import rerank_caveat
from handreid.evaluation.tables.format import format_difference, format_number, markdown_table
from handreid.messages import markdown as as_markdown
from handreid.metric_table import METRICS, metrics_of, title
from handreid.metrics.separation import COMPARED
from handreid.runs.results import Difference, Evaluation, Number, Reranked, SeedRung

# columns of every table of rankings, and whether with intervals: all of them would not fit
SHOWN = {"rank1": True, "rank5": False, "map": True, "map_trapezoid": False, "minp": False}
LEADING = "rank1"  # whose differences, and seeds, a ladder shows; the first of SHOWN
SPREAD = f"{title(LEADING)} of the seeds"  # lowest to highest
Evaluated = Evaluation | SeedRung


def columns(rungs: Sequence[Rung]) -> list[str]:
    metrics = metric_columns(_more(rungs))
    spread = [SPREAD] if _seeds(rungs) else []
    return ["rung", metrics[0], *spread, *metrics[1:], f"{title(LEADING)} against the rung below"]


def format_rows(rungs: Sequence[Rung]) -> list[list[str]]:
    """A row for each rung, and below it one for each of its re-rankings, compared with the rung itself."""
    more, seeded = _more(rungs), bool(_seeds(rungs))
    rows = []
    for rung in rungs:
        first, *cells = format_cells(rung.evaluation.metrics, more)
        spread = [_spread(rung)] if seeded else []
        rows.append([rung.name, first, *spread, *cells, _gain(LEADING, rung.below)])
        for way in rung.evaluation.reranked or ():
            first, *cells = format_cells(way.metrics, more)
            rows.append([f"+ {way.name}", first, *([""] if seeded else []), *cells, _gain(LEADING, way.against)])
    return rows


def _seeds(rungs: Sequence[Rung]) -> int:
    """With how many training seeds the ladder was run; 0 where each rung has one run."""
    counts = [len(rung.evaluation.seeds) for rung in rungs if isinstance(rung.evaluation, SeedRung)]
    return max((count for count in counts if count > 1), default=0)


def _runs_once(rung: Rung) -> bool:
    return not isinstance(rung.evaluation, SeedRung) or len(rung.evaluation.seeds) == 1


def _spread(rung: Rung) -> str:
    if not isinstance(rung.evaluation, SeedRung) or _runs_once(rung):
        return "one run"
    values = [result.metrics[LEADING] for result in rung.evaluation.seeds]
    ends = (Number(value=end, low=None, high=None) for end in (min(values), max(values)))
    return " to ".join(format_number(LEADING, end) for end in ends)


def tell_more(evaluations: Sequence[Evaluated]) -> list[str]:
    """Further metrics that all evaluations have, and that differ from their twin in `SHOWN` in at least one."""
    measured: list[Evaluated | Reranked] = [
        part for evaluation in evaluations for part in (evaluation, *(evaluation.reranked or ()))
    ]
    tables = [result.metrics for result in measured]
    return [
        name
        for name in metrics_of("ranking")
        if (twin := METRICS[name].twin)
        and all(name in part for part in tables)
        and any(part[name].value != part[twin].value for part in tables)
    ]


def _more(rungs: Sequence[Rung]) -> list[str]:
    return tell_more([rung.evaluation for rung in rungs])


def metric_columns(more: Sequence[str]) -> list[str]:
    return [title(name) for name in (*SHOWN, *more)]


def format_cells(metrics: Mapping[str, Number], more: Sequence[str] = ()) -> list[str]:
    """The numbers of a row; percent, with 95 % intervals over subjects."""
    columns = {**SHOWN, **dict.fromkeys(more, False)}
    return [format_number(name, metrics[name], interval=interval) for name, interval in columns.items()]


def section_columns(name: str) -> list[str]:
    """Column heads of a section's numbers, each saying whether lower or higher is better."""
    return [METRICS[metric].column for metric in metrics_of(name)]


def section_cells(name: str, numbers: Mapping[str, Number], *, interval: bool = True) -> list[str]:
    """Empty where a number is missing or not defined."""
    return [
        format_number(metric, numbers[metric], interval=interval) if metric in numbers else ""
        for metric in metrics_of(name)
    ]


def section_names(evaluations: Sequence[Evaluated]) -> list[str]:
    """Sections with numbers that any of the evaluations has, in order of first appearance."""
    return list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.number_sections))


def section_title(name: str) -> str:
    return "separation" if name == "separation" else name.replace("_", " ")


def section_table(rungs: Sequence[Rung], name: str) -> tuple[list[str], list[list[str]]]:
    """Column heads and a row for each rung; for the separation with the differences to the rung below."""
    compared = COMPARED if name == "separation" else ()
    heads = [f"{METRICS[metric].title} against the rung below" for metric in compared]
    rows = []
    for rung in rungs:
        section = rung.evaluation.number_sections.get(name)
        numbers = {} if section is None else section.numbers
        rows.append([rung.name, *section_cells(name, numbers), *(_gain(metric, rung.below) for metric in compared)])
    return ["rung", *section_columns(name), *heads], rows


def section_caption(evaluations: Sequence[Evaluated], name: str) -> str:
    """The caption of a section in a line, from the last evaluation that has one."""
    captions = [
        evaluation.number_sections[name].caption for evaluation in evaluations if name in evaluation.number_sections
    ]
    return next(filter(None, reversed(captions)), "")


def captions(rungs: Sequence[Rung]) -> list[str]:
    """Lines that say what the table of a ladder shows."""
    resampled = "subjects and seeds" if _seeds(rungs) else "subjects"
    return [caption_of(rungs[-1].evaluation, resampled), *_seeds_captions(rungs), *_reranked_captions(rungs)]


def caption_of(evaluation: Evaluated, resampled: str = "subjects") -> str:
    """Protocol, counts and hashes in a line; `resampled` is what the intervals are over."""
    counts, hashes, protocol = evaluation.counts, evaluation.hashes, evaluation.protocol
    crossed = ", cameras crossed" if protocol.cameras == "cross" else ""
    unanswerable = f" ({counts.unanswerable:,} of all draws without a right answer)" if counts.unanswerable else ""
    return (
        f"protocol {protocol.name}, views {protocol.view}, identity = {protocol.label}{crossed}: "
        f"{counts.most_queries} queries{unanswerable} "
        f"of {counts.subjects} subjects in {counts.gallery} gallery photos, mean of {counts.draws} draws; "
        f"percent, 95 % intervals over {resampled}; manifest {hashes.manifest[:8]}, draws {hashes.draws[:8]}"
    )


def _seeds_captions(rungs: Sequence[Rung]) -> list[str]:
    count = _seeds(rungs)
    if not count:
        return []
    once = "; a rung that no seed changes has one run" if any(map(_runs_once, rungs)) else ""
    means = f"mean of {count} training seeds on the same split and draws{once}"
    return [f"{means}; intervals by a bootstrap of subjects and of seeds; differences paired seed by seed"]


def _reranked_captions(rungs: Sequence[Rung]) -> list[str]:
    """Explains the rows that start with +, with caveats about the galleries; empty where there are none."""
    if not any(rung.evaluation.reranked for rung in rungs):
        return []
    explanation = "rows with + re-rank the same embeddings and are compared with the rung without re-ranking"
    evaluations = [rung.evaluation for rung in rungs if isinstance(rung.evaluation, Evaluation)]
    return [explanation, *filter(None, dict.fromkeys(map(rerank_caveat, evaluations)))]


def markdown(rungs: Sequence[Rung]) -> str:
    names = columns(rungs)
    table = markdown_table(names, format_rows(rungs), _words(len(names), 1))
    parts = [*table, "", as_markdown("; ".join(captions(rungs)))]
    evaluations = [rung.evaluation for rung in rungs]
    for name in section_names(evaluations):
        heads, body = section_table(rungs, name)
        words = _words(len(heads), len(COMPARED) if name == "separation" else 0)
        parts += ["", *markdown_table(heads, body, words), "", as_markdown(section_caption(evaluations, name))]
    return "\n".join(parts).rstrip("\n") + "\n"


def _gain(metric: str, differences: Mapping[str, Difference] | None) -> str:
    return format_difference(metric, differences[metric]) if differences and metric in differences else ""


def _words(columns: int, trailing: int) -> list[bool]:
    """True for the first column and the `trailing` last ones, which hold text."""
    return [number == 0 or number >= columns - trailing for number in range(columns)]
