"""Ladders over several training seeds on the page: the table of the ladder, and means with intervals as dots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handreid.evaluation.compare import Rung
from handreid.evaluation.tables import ladder
from handreid.metric_table import title
from handreid.report.page.interval_chart import dots
from handreid.report.page.tables import sentence
from handreid.runs.results import SeedLadder, SeedRung, read_ladder

NOTE = (
    "The ladder was run with several training seeds: the section “Over seeds” compares its rungs over them. Everything "
    "else on this page, the summary above included, is of the first seed's runs."
)
_DRAWN = ("rank1", "map")


def ladders(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """One entry for each path that is the folder of such a ladder."""
    found = [read_ladder(path) for path in paths if (path / "ladder.json").is_file()]
    return [_section(one.rungs) for one in found if isinstance(one, SeedLadder)]


def _section(seed_rungs: Sequence[SeedRung]) -> dict[str, Any]:
    rungs = [Rung(rung.recipe, rung, rung.below) for rung in seed_rungs]
    drawn = [
        (rung.name, [rung.evaluation.metrics[name] for name in _DRAWN], (rung.below or {}).get(ladder.LEADING))
        for rung in rungs
    ]
    verdicts = f"The verdict below a name compares its {title(ladder.LEADING)} with that of the rung below"
    return {
        "caption": " ".join(map(sentence, [*ladder.captions(rungs), verdicts])),
        "columns": ladder.columns(rungs),
        "range": ladder.columns(rungs).index(ladder.SPREAD) if ladder.SPREAD in ladder.columns(rungs) else None,
        "rows": ladder.format_rows(rungs),
        "chart": dots(drawn, least=0.0),
        "names": [title(name) for name in _DRAWN],
    }
