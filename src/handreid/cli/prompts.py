"""`handreid prompts explain`: the words nearest to the prompts that a run learned."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Json, begin

app = typer.Typer(help="Inspect the prompts that a run has learned.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    identities: Annotated[int, typer.Option(help="Number of identities to show, in order of name.", min=1)] = 5,
    words: Annotated[int, typer.Option(help="Number of words to show for each learned embedding.", min=1)] = 3,
    json: Json = False,
) -> None:
    """List the words nearest to each learned context, with distances. They do not explain what was learned."""
    early.run(run)
    begin()
    from handreid.report import nearest_words
    from handreid.runs.folder import open_run

    contexts, usual = nearest_words.explain(open_run(run), identities=identities, words=words)
    if json:
        output.as_json(nearest_words.content(contexts, usual))
        return
    rows = [
        (
            context.identity or "shared by all",
            str(context.prompt + 1),
            context.sentence,
            " | ".join(", ".join(f"{word} {distance:.2f}" for word, distance in near) for near in context.tokens),
        )
        for context in contexts
    ]
    output.table("nearest words to each learned embedding", ("identity", "prompt", "sentence", "words"), rows, left=4)
    output.echo(f"Distances are Euclidean; half of the vocabulary's words have another within {usual:.2f}.")
    output.echo(nearest_words.WARNING)
