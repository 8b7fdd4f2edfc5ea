"""A run on test identities: embeddings once, then section by section, evaluation.json with what it rests on.

What is computed is the list of sections (`sections/__init__.py`). A new one is a file there; its numbers need a line in
the table of metrics (`metric_table.py`), and everything that shows results shows them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handreid.data.splits import evaluated_rows
from handreid.evaluation import sections
from handreid.evaluation.duplicates import remarks_on_copies
from handreid.evaluation.embedding_cache import contents_of, embeddings_of, keep, read_kept
from handreid.evaluation.sections.context import EvaluationContext
from handreid.evaluation.sections.reranking import filename_suffix
from handreid.files import check_folder_writable, file_hash, write_json
from handreid.inference import Shots, load_embedder
from handreid.metrics.query_scores import score
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Rerank, Tracker
from handreid.recipe.load import override_recipe
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run, check_finished, environment
from handreid.runs.leakage import Leak, unseen
from handreid.runs.pretrained_weights import check_weights
from handreid.runs.results import EVALUATION_FORMAT, Evaluation, Hashes, LeftOut, Protocol, Ranking
from handreid.runs.side_information import side_information_of
from handreid.tracking.client import Sender, follow
from handreid.tracking.state import note_untold


def evaluate(
    run: Run,
    *,
    data: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    flip_tta: bool | None = None,
    rerank: Sequence[Rerank] | None = None,
    progress: Progress | None = None,
    track: Sequence[Tracker] | None = None,
    sender: Sender | None = None,
) -> tuple[Path, Evaluation]:
    """The file written and its content: evaluation.json for the run's own data and protocol, else a name of its own.

    `changes` replaces keys of the recipe's `data` (protocol, label, view, cameras), `rerank` its ways of re-ranking.
    The trackers in `track` get the numbers, and no others, whatever the run's folder names. Of other photos than the
    run's own, people whom it knows are left out, and counted in `left_out`. Raises RunError for an unfinished run,
    ProtocolError when test subjects of its own photos were trained on, or nobody is left.
    """
    check_finished(run)
    check_folder_writable(run.folder, create=False)
    progress = progress or NullProgress()
    recipe = run.recipe
    own = load_dataset(recipe, Path(run.facts["manifest"])) if data is None else None
    asked = override_recipe(recipe, changes or {}, flip_tta, rerank)
    place = data or Path(run.facts["manifest"])
    material = own if own and asked.data == recipe.data else load_dataset(asked, place, trains=False)
    material, leaks, notes = unseen(run, material, progress)
    if asked.evaluate.prompts is not None:
        check_weights(run, asked)  # before the work: its text tower is read after it
    is_own = _is_own(run, recipe, asked, material)
    note_untold(run, track, (), progress)
    with follow(run, track or (), sender, progress, ended=True):
        content = _assess(run, asked, material, leaks, notes, progress)
        path = run.evaluation if is_own else _named(run, recipe, asked, content)
        write_json(path, content.model_dump(mode="json"), by_line=True)
    return path, content


def _assess(
    run: Run, recipe: Recipe, material: RunDataset, leaks: Sequence[Leak], notes: Sequence[str], progress: Progress
) -> Evaluation:
    """Everything that the sections find."""
    context = _context(run, recipe, material, progress)
    found: dict[str, Any] = {"sections": {}}
    for section in sections.SECTIONS:
        result = section(context)
        if isinstance(result, Ranking):
            found |= {name: getattr(result, name) for name in Ranking.model_fields}
        elif result is not None:
            place = found if section.name in Evaluation.model_fields else found["sections"]
            place[section.name] = result
    model_hash = file_hash(run.model)
    if context.made:
        keep(run, material.manifest, context.rows, context.contents, context.made, model_hash, progress)
    split = material.split
    return Evaluation(
        format=EVALUATION_FORMAT,
        recipe=recipe.name,
        protocol=Protocol(
            name=split.protocol, label=split.label, view=split.view or "all", cameras=recipe.data.cameras
        ),
        hashes=Hashes(manifest=material.manifest.hash, split=split.hash, draws=split.draws_hash, model=model_hash),
        flip_tta=recipe.evaluate.flip_tta,
        notes=[*context.notes, *notes],
        environment=environment(),
        left_out=[LeftOut.model_validate(leak.entry()) for leak in leaks],
        **found,
    )


def _context(run: Run, recipe: Recipe, material: RunDataset, progress: Progress) -> EvaluationContext:
    """Every test photo embedded, and every query ranked."""
    embedder, model_hash = load_embedder(run), file_hash(run.model)
    manifest, split = material.manifest, material.split
    rows = evaluated_rows(split)
    kept = read_kept(run, model_hash, progress)
    contents = contents_of(manifest, rows, kept, progress, pictures=True)
    conditions, remarks = side_information_of(embedder, manifest.table[rows])
    shots = Shots(manifest, rows, recipe, embedder, progress)
    keys, embeddings = embeddings_of(shots, contents, kept, conditions)
    keep(run, manifest, rows, contents, [(keys, embeddings)], model_hash, progress)
    return EvaluationContext(
        run,
        recipe,
        manifest,
        split,
        rows,
        embedder,
        embeddings,
        score(embeddings, rows, split.test, split.identities, cameras=split.cameras),
        conditions,
        contents,
        kept,
        keys,
        shots,
        progress,
        [*split.notes, *remarks, *remarks_on_copies(contents.pictures, rows, split)],
    )


def _is_own(run: Run, recipe: Recipe, asked: Recipe, material: RunDataset) -> bool:
    same = run.facts["draws_hash"] == material.split.draws_hash
    alike = recipe.evaluate.flip_tta == asked.evaluate.flip_tta and recipe.evaluate.rerank == asked.evaluate.rerank
    return same and alike and recipe.data.view == asked.data.view


def _named(run: Run, recipe: Recipe, asked: Recipe, content: Evaluation) -> Path:
    protocol = content.protocol
    parts = [protocol.name, protocol.label, protocol.view, content.hashes.draws[:8]]
    if protocol.cameras == "cross":
        parts.append("cameras-cross")
    if content.flip_tta:
        parts.append("flip-tta")
    if asked.evaluate.rerank != recipe.evaluate.rerank:
        parts.append(filename_suffix(asked.evaluate.rerank))
    return run.folder / f"evaluation-{'-'.join(parts)}.json"
