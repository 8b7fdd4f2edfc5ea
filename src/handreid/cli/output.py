"""Output of commands: tables for people, JSON for programs. Text is made safe for a terminal, whatever names, notes and
paths hold; see `messages`.
"""

from collections.abc import Sequence
from typing import Any

import typer

from handreid import messages


def echo(text: str, *, err: bool = False) -> None:
    """Prints one line."""
    typer.echo(messages.line(text), err=err)


def page(text: str) -> None:
    """Prints text of several lines that ends with a line break, such as a file's."""
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
    """Prints a plain table. The first `left` columns are text, the others numbers, unless `words` says it for each.

    Columns in `whole` are folded last. In a cell, a new line starts before each of the texts in `fold`.
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
    if not console.is_terminal:  # a pipe has no width, so nothing is folded
        console = Console(highlight=False, markup=False, emoji=False, width=200)
    console.print(drawn)


def _cell(text: str, fold: Sequence[str]) -> str:
    text = messages.line(text)
    for place in fold:
        text = text.replace(place, f"\n{place.lstrip()}")
    return text


def description(content: dict[str, Any]) -> None:
    """Prints `handreid data describe`: counts of photos and subjects, then the split of each protocol."""
    unlabelled = f", {content['unlabelled']:,} of them without a subject" if content["unlabelled"] else ""
    echo(
        f"{content['photos']:,} photos of {content['subjects']:,} subjects{unlabelled}, {content['dataset']}, "
        f"hash {content['hash'][:16]}"
    )
    if content["views"]:
        view_rows = [(view, f"{n['photos']:,}", f"{n['subjects']:,}") for view, n in content["views"].items()]
        table("views", ("view", "photos", "subjects"), view_rows)
    predicted = {name: count for name, count in content["predicted"].items() if count}
    if predicted:
        echo("predicted, not known: " + ", ".join(f"{name} of {count:,} photos" for name, count in predicted.items()))
    kinds = content["photos_per_identity"].items()
    columns = ("identity", "identities", "fewest", "median", "most", "with_one_photo")
    table("photos per identity", columns, [(k, *(f"{n[c]:g}" for c in columns[1:])) for k, n in kinds])
    column_rows = [(name, _values(column)) for name, column in content["metadata"].items()]
    if column_rows:
        table("other columns", ("column", "values"), column_rows, left=2)
    _protocols(content["protocols"])
    for note in content["notes"]:
        echo(f"note: {note}")


def _values(column: dict[str, Any]) -> str:
    if "counts" in column:
        return ", ".join(f"{value} ({count:,})" for value, count in column["counts"].items())
    span = f", {column['lowest']:g} to {column['highest']:g}" if column.get("lowest") is not None else ""
    return f"{column['distinct']:,} distinct{span}" + (f", {column['missing']:,} missing" if column["missing"] else "")


def _protocols(protocols: dict[str, Any]) -> None:
    rows, remarks = [], []
    for name, views in protocols.items():
        for view, split in views.items():
            if "error" in split:
                remarks.append(f"{name}, {view}: {split['error']}")
                continue
            train = f"{split['train_identities']:,} / {split['train_photos']:,}"
            test = f"{split['test_identities']:,} / {split['test_photos']:,}"
            rows.append(
                (name, view, train, test, f"{split['queries']:,}", f"{split['gallery']:,}", split["draws_hash"][:8])
            )
            remarks += [f"{name}, {view}: {note}" for note in split["notes"]]
    columns = ("protocol", "view", "train ids / photos", "test ids / photos", "queries", "gallery", "draws hash")
    table("split of each protocol (queries and gallery of the first draw)", columns, rows, left=2)
    for remark in remarks:
        echo(f"note: {remark}")
