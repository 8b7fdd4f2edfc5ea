"""Evaluates a run on test identities: embeds once, computes section by section, writes evaluation.json.

What is computed is the list of sections (`sections/__init__.py`). A new one is a file there; its numbers need a line in
the table of metrics (`metric_table.py`), and everything that shows results then shows them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handreid.data.splits import evaluated_rows
from handreid.evaluation import sections
from handreid.evaluation.duplicates import remarks_on_copies
from handreid.evaluation.embedding_cache import add_to_cache, contents_of, embeddings_of, read_cache
from handreid.evaluation.sections.context import EvaluationContext
from handreid.evaluation.sections.reranking import filename_suffix
from handreid.files import check_folder_writable, file_hash, write_json
from handreid.inference import Shots, load_embedder
from handreid.metrics.query_scores import score
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe, Rerank, Tracker
from handreid.recipe.load import override_recipe
from handreid.runs.dataset import RunDataset, check_tested, load_dataset
from handreid.runs.folder import Run, check_finished, environment
from handreid.runs.leakage import Leak, unseen
from handreid.runs.pretrained_weights import check_weights
from handreid.runs.rendered_photos import recorded_manifest
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
    """The file written and its content: evaluation.json for the run's own data and protocol, else another name.

    `changes` replaces keys of the recipe's `data` (protocol, label, view, cameras), `rerank` its ways of re-ranking.
    Only the trackers in `track` get the numbers, whatever the run's folder names. On other photos than the run's own,
    subjects that the run has seen are left out and counted in `left_out`. Raises RunError for an unfinished run,
    ProtocolError when test subjects of its own photos were trained on, or no subject is left.
    """
    check_finished(run)
    check_folder_writable(run.folder, create=False)
    progress = progress or NullProgress()
    recipe = run.recipe
    place = data or recorded_manifest(run.facts, progress)
    trained_on = load_dataset(recipe, place) if data is None else None
    changed = override_recipe(recipe, changes or {}, flip_tta, rerank)
    material = trained_on if trained_on and changed.data == recipe.data else load_dataset(changed, place, trains=False)
    check_tested(material)
    material, leaks, notes = unseen(run, material, progress)
    if changed.evaluate.prompts is not None:
        check_weights(run, changed)  # early: the text tower is needed only at the end
    is_own = _is_own(run, recipe, changed, material)
    note_untold(run, track, (), progress)
    with follow(run, track or (), sender, progress, ended=True):
        content = _assess(run, changed, material, leaks, notes, progress)
        path = run.evaluation if is_own else _other_path(run, recipe, changed, content)
        write_json(path, content.model_dump(mode="json"), by_line=True)
    return path, content


def _assess(
    run: Run, recipe: Recipe, material: RunDataset, leaks: Sequence[Leak], notes: Sequence[str], progress: Progress
) -> Evaluation:
    """The results of all sections, with what they rest on."""
    context = _context(run, recipe, material, progress)
    content: dict[str, Any] = {"sections": {}}
    for section in sections.SECTIONS:
        result = section(context)
        if isinstance(result, Ranking):
            content |= {name: getattr(result, name) for name in Ranking.model_fields}
        elif result is not None:
            place = content if section.name in Evaluation.model_fields else content["sections"]
            place[section.name] = result
    model_hash = file_hash(run.model)
    if context.computed:
        add_to_cache(run, material.manifest, context.rows, context.contents, context.computed, model_hash, progress)
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
        **content,
    )


def _context(run: Run, recipe: Recipe, material: RunDataset, progress: Progress) -> EvaluationContext:
    """Embeds all test photos and ranks all queries."""
    embedder, model_hash = load_embedder(run), file_hash(run.model)
    manifest, split = material.manifest, material.split
    rows = evaluated_rows(split)
    cached = read_cache(run, model_hash, progress)
    contents = contents_of(manifest, rows, cached, progress, embedder.preprocessing, decode=True)
    conditions, remarks = side_information_of(embedder, manifest.table[rows])
    shots = Shots(manifest, rows, recipe, embedder, progress)
    keys, embeddings = embeddings_of(shots, contents, cached, conditions)
    add_to_cache(run, manifest, rows, contents, [(keys, embeddings)], model_hash, progress)
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
        cached,
        keys,
        shots,
        progress,
        [*split.notes, *remarks, *remarks_on_copies(contents.pictures, rows, split)],
    )


def _is_own(run: Run, recipe: Recipe, changed: Recipe, material: RunDataset) -> bool:
    # photos of the same names, turned or found anew, have the same draws: they must not replace the run's own result
    same_photos = run.facts["manifest_hash"] == material.manifest.hash
    same_draws = run.facts["draws_hash"] == material.split.draws_hash
    same_settings = (
        recipe.evaluate.flip_tta == changed.evaluate.flip_tta and recipe.evaluate.rerank == changed.evaluate.rerank
    )
    return same_photos and same_draws and same_settings and recipe.data.view == changed.data.view


def _other_path(run: Run, recipe: Recipe, changed: Recipe, content: Evaluation) -> Path:
    protocol = content.protocol
    parts = [protocol.name, protocol.label, protocol.view, content.hashes.draws[:8]]
    if content.hashes.manifest != run.facts["manifest_hash"]:
        parts.append(content.hashes.manifest[:8])
    if protocol.cameras == "cross":
        parts.append("cameras-cross")
    if content.flip_tta:
        parts.append("flip-tta")
    if changed.evaluate.rerank != recipe.evaluate.rerank:
        parts.append(filename_suffix(changed.evaluate.rerank))
    return run.folder / f"evaluation-{'-'.join(parts)}.json"
