"""What commands print: tables for people on standard output, JSON for programs. Nothing that is printed here acts on a
terminal, whatever names, notes and paths hold; see `messages`.
"""

from collections.abc import Sequence
from typing import Any

import typer

from handreid import messages


def echo(text: str, *, err: bool = False) -> None:
    """One line."""
    typer.echo(messages.line(text), err=err)


def page(text: str) -> None:
    """Text in several lines that ends with a line break, such as a file's."""
    typer.echo(messages.text(text), nl=False)


def as_json(content: Any) -> None:
    typer.echo(messages.json_text(content))


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    words: Sequence[bool] | None = None,
    whole: Sequence[int] = (),
    fold: Sequence[str] = (),
) -> None:
    """A plain table; the first `left` columns are words, the others numbers, or as `words` says of each.

    Columns in `whole` are not folded while others still can be. In a cell, a new line begins with each of `fold`.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(
        title=messages.line(title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    for number, column in enumerate(columns):
        worded = words[number] if words else number < left
        justify: Any = "left" if worded else "right"
        drawn.add_column(messages.line(column), justify=justify, overflow="fold", no_wrap=number in whole)
    for row in rows:
        drawn.add_row(*(_cell(text, fold) for text in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:  # a pipe has no width of its own: nothing is folded
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    console.print(drawn)


def _cell(text: str, fold: Sequence[str]) -> str:
    text = messages.line(text)
    for place in fold:
        text = text.replace(place, f"\n{place.lstrip()}")
    return text


def description(found: dict[str, Any]) -> None:
    """`handreid data describe` for people: counts of photos and people, then what each protocol would use."""
    unlabelled = f", {found['unlabelled']:,} of them without a subject" if found["unlabelled"] else ""
    echo(
        f"{found['photos']:,} photos of {found['subjects']:,} subjects{unlabelled}, {found['dataset']}, "
        f"hash {found['hash'][:16]}"
    )
    if found["views"]:
        rows = [(view, f"{n['photos']:,}", f"{n['subjects']:,}") for view, n in found["views"].items()]
        table("views", ("view", "photos", "subjects"), rows)
    kinds = found["photos_per_identity"].items()
    columns = ("identity", "identities", "fewest", "median", "most", "with_one_photo")
    table("photos per identity", columns, [(k, *(f"{n[c]:g}" for c in columns[1:])) for k, n in kinds])
    known = [(name, _values(of)) for name, of in found["metadata"].items()]
    if known:
        table("other columns", ("column", "values"), known, left=2)
    _protocols(found["protocols"])
    for note in found["notes"]:
        echo(f"note: {note}")


def _values(of: dict[str, Any]) -> str:
    if "counts" in of:
        return ", ".join(f"{value} ({count:,})" for value, count in of["counts"].items())
    span = f", {of['lowest']:g} to {of['highest']:g}" if of.get("lowest") is not None else ""
    return f"{of['distinct']:,} distinct{span}" + (f", {of['missing']:,} missing" if of["missing"] else "")


def _protocols(protocols: dict[str, Any]) -> None:
    rows, remarks = [], []
    for name, views in protocols.items():
        for view, of in views.items():
            if "error" in of:
                remarks.append(f"{name}, {view}: {of['error']}")
                continue
            train = f"{of['train_identities']:,} / {of['train_photos']:,}"
            test = f"{of['test_identities']:,} / {of['test_photos']:,}"
            rows.append((name, view, train, test, f"{of['queries']:,}", f"{of['gallery']:,}", of["draws_hash"][:8]))
            remarks += [f"{name}, {view}: {note}" for note in of["notes"]]
    columns = ("protocol", "view", "train ids / photos", "test ids / photos", "queries", "gallery", "draws hash")
    table("split of each protocol (queries and gallery of the first draw)", columns, rows, left=2)
    for remark in remarks:
        echo(f"note: {remark}")
