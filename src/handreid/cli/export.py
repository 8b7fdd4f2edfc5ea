"""`handreid export`: weights of a run for other programs and recipes."""

from pathlib import Path
from typing import Annotated

import typer

from handreid.cli import early, output
from handreid.cli.options import Data, RunFolder, begin

app = typer.Typer(help="Write what a run has learned into files for others.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def towers(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option(help="File to write, .safetensors; an existing file of exported towers is replaced.")
    ],
    data: Data = None,
) -> None:
    """Write both towers of a pre-trained run as a small file that starts recipes: `model.backbone.weights=FILE`.

    float16; of the vocabulary only the tokens of the run's captions and of handreid's own sentences. The weights inside
    the package were written by this command. --data is the run's manifest, if that has moved.
    """
    from handreid.files import check_writable

    early.run(run, finished=True)
    early.manifests([data])
    check_writable(out, (".safetensors",))
    progress = begin()
    from handreid.runs.folder import open_run
    from handreid.workflows.export_towers import export_towers

    written = export_towers(open_run(run), out, data=data, progress=progress)
    output.echo(
        f"{out}: both towers, {written.size / 1e6:.1f} MB, {written.kept:,} tokens ({written.seen:,} learned from)"
    )
