"""Checks that draws can be evaluated: there are queries with a right answer, and two identities or more."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from handreid.data.manifest import LabelKind, Manifest
from handreid.data.tables import format_list
from handreid.draw import Draw
from handreid.errors import ProtocolError


def check_queries(
    draws: Sequence[Draw], manifest: Manifest, label: LabelKind, rows: Collection[int], purpose: str, what: str
) -> None:
    """Raises ProtocolError for a draw without a query, naming the labels with which `rows` would give some."""
    if draws and all(len(draw.query) for draw in draws):
        return

    def with_two(labels: Sequence[str | None]) -> int:
        return sum(count > 1 for count in Counter(labels[row] for row in rows).values())

    raise ProtocolError(
        f"{what}: no {purpose} identity has two photos, one as query and one for the gallery, with data.label: "
        f"{label}; {labels_that_would_do(manifest, with_two, 'identity', 'with two photos or more')}"
    )


def labels_that_would_do(
    manifest: Manifest, count_of: Callable[[Sequence[str | None]], int], noun: str, having: str
) -> str:
    """Advice: for each kind of label how many it would give; `count_of` counts from the labels of all rows."""
    counts = {kind: count_of(manifest.labels(kind)) for kind in manifest.label_kinds}
    options = [f"label {kind} has {counted(count, noun)}" for kind, count in counts.items() if count]
    if not options:
        return f"no other data.label has one {having} either: more photos per identity are needed"
    return f"{', '.join(options)} {having}: set data.label, or give more photos per identity"


def check_galleries(draws: Sequence[Draw], labels: Sequence[str], purpose: str, advice: str) -> None:
    """Raises ProtocolError for a gallery of one identity, which any model finds. `labels` are looked up by row."""
    for draw in draws:
        names = {labels[row] for row in draw.gallery}
        if len(names) < 2:
            raise ProtocolError(
                f"the gallery of the {purpose} holds one identity only ({format_list(names)}), so rank-1 is "
                "100 % for any "
                f"model: {advice}"
            )


def check_validation(draws: Sequence[Draw], labels: Sequence[str], advice: str) -> None:
    """Raises ProtocolError for a validation that searches among, or for, one identity only."""
    check_galleries(draws, labels, "validation", advice)
    names = {labels[row] for draw in draws for row in draw.query}
    if len(names) < 2:
        raise ProtocolError(
            f"validation has queries of one identity only ({format_list(names)}), too few to choose a model "
            f"by: {advice}"
        )


def counted(number: int, noun: str) -> str:
    """`1 identity`, `12 identities`."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") and not noun.endswith("ey") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
