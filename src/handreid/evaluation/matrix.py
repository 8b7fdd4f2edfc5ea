"""Cross-condition evaluation of a run: gallery photos of one condition, query photos of another.

* Photos are embedded once, and once more mirrored; every cell ranks the same embeddings.
* Subjects that the run or one of its parents was trained on or validated with are in no cell, whatever the view or the
  label (`leakage`): neither as a query nor in a gallery.
* By view or side: the test photos of one manifest, crossed (`data/crossing`). By data set: each data set's own test,
  alone and beside another's gallery (`across_datasets`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
from jaxtyping import Int

from handreid.data.cross_condition import Cell, CrossedBy, cross_views
from handreid.data.manifest import read
from handreid.errors import RunError
from handreid.evaluation.cross_dataset import dataset_cells
from handreid.evaluation.embedding_cache import add_to_cache, contents_of, embeddings_of, read_cache
from handreid.evaluation.matrix_cells import Embedded, difference_to_matched, pool_by_kind, score_cells
from handreid.evaluation.sections.alignment import alignment_remarks
from handreid.evaluation.sections.chirality import chirality_remarks
from handreid.evaluation.tables.matrix import markdown
from handreid.evaluation.unseen_test_set import UnseenTestSet, name_test_sets, unseen_test_set
from handreid.files import check_folder_writable, file_hash, write_json, write_text
from handreid.inference import Shots, load_embedder
from handreid.progress import NullProgress, Progress
from handreid.recipe import Recipe
from handreid.recipe.load import override_recipe
from handreid.runs.exposure import exposures_of, load_run_dataset, training_summary
from handreid.runs.folder import Run, check_finished, environment
from handreid.runs.results import (
    MATRIX_FORMAT,
    LeftOut,
    Matrix,
    MatrixCell,
    MatrixHashes,
    MatrixKind,
    SharedCell,
    SharedKind,
    SharedMatrix,
    TestedOn,
    TrainedOn,
    read_matrix,
)
from handreid.runs.side_information import side_information_of

By = Literal["view", "side", "dataset"]
BY: tuple[By, ...] = get_args(By)


def matrix_of(
    run: Run,
    by: By,
    *,
    data: Sequence[Path] = (),
    protocol: str | None = None,
    cameras: str | None = None,
    flip_tta: bool | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Matrix]:
    """The file written and its content; a table of the same name as .md is written beside it.

    `data`: over views and sides another manifest than the run's, over data sets those to test beside it. `protocol`
    replaces the recipe's (views and sides only), `cameras` the recipe's rule. Raises RunError for an unfinished run, or
    when the subjects it was trained on cannot be determined any more; ProtocolError where there is nothing to cross.
    """
    check_finished(run)
    check_folder_writable(run.folder, create=False)
    _check_options(by, data, protocol)
    progress = progress or NullProgress()
    recipe = override_recipe(run.recipe, {"protocol": protocol, "cameras": cameras}, flip_tta)
    trained_on = load_run_dataset(run, data, progress)
    exposures, notes = exposures_of(run, data, progress)
    if by == "dataset":
        paths = _each_once([trained_on.path, *data])
        tests = name_test_sets(
            [unseen_test_set(recipe, path, trained_on, exposures, None, progress) for path in paths], paths
        )
        scored = _over_datasets(run, recipe, tests, progress)
    else:
        pooled = override_recipe(recipe, {"view": "all"}, None)
        tests = [
            unseen_test_set(pooled, data[0] if data else trained_on.path, trained_on, exposures, protocol, progress)
        ]
        scored = _over_views(run, recipe, tests[0], by, progress)
    names = [path for test in tests for path in test.manifest.table["path"]]
    content = Matrix(
        format=MATRIX_FORMAT,
        recipe=recipe.name,
        by=by,
        trained_on=TrainedOn.model_validate(training_summary(run, trained_on)),
        tested_on=[_tested_on(test) for test in tests],
        cells=scored.cells,
        kinds=scored.kinds,
        shared=scored.shared,
        left_out=[LeftOut.model_validate({**leak, "dataset": test.name}) for test in tests for leak in test.out],
        cameras=recipe.data.cameras,
        flip_tta=recipe.evaluate.flip_tta,
        notes=[*notes, *_notes(tests), *scored.remarks],
        hashes=MatrixHashes(
            manifest=_joined([test.manifest.hash for test in tests]),
            draws=_draws_hash(scored.ranked, names, _cameras(tests)),
            model=file_hash(run.model),
        ),
        environment=environment(),
    )
    plain = by != "dataset" and tests[0].manifest.hash == trained_on.manifest.hash and protocol is None
    path = _place(run, recipe, by, content, plain=plain)
    write_json(path, content.model_dump(mode="json"), by_line=True)
    write_text(path.with_suffix(".md"), markdown(content))
    return path, content


def read_matrices(run: Run) -> list[Matrix]:
    """All matrices in the run's folder, sorted by file name."""
    return [read_matrix(path) for path in matrix_files(run)]


def matrix_files(run: Run, by: By | None = None) -> list[Path]:
    """The files of one kind of matrix, or of all kinds; may be empty."""
    return sorted(path for kind in ([by] if by else BY) for path in run.folder.glob(f"evaluation-matrix-{kind}*.json"))


def written_matrix(run: Run, by: By, file: Path | None = None) -> Matrix:
    """The run's matrix of a kind, by default the one on its own photos. Raises RunError if none, or not just one."""
    files = matrix_files(run, by)
    default = run.folder / f"evaluation-matrix-{by}.json"
    if file is None and not files:
        raise RunError(f"{run.folder} has no matrix over {by} yet; write it with `handreid evaluate --matrix {by}`")
    if file is None and default not in files and len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise RunError(f"{run.folder} has {len(files)} matrices over {by}; choose one with --file: {names}")
    matrix = read_matrix(file or (default if default in files else files[0]))
    if matrix.by != by:
        raise RunError(f"{file} is not a matrix over {by}; write one with `handreid evaluate --matrix {by}`")
    return matrix


@dataclass(frozen=True, eq=False)
class _Scores:
    """`ranked` are the cells that were ranked, for the hash of the draws."""

    cells: list[MatrixCell]
    kinds: list[MatrixKind]
    shared: SharedMatrix | None
    ranked: Sequence[Cell]
    remarks: list[str]


def _over_views(run: Run, recipe: Recipe, tested: UnseenTestSet, by: CrossedBy, progress: Progress) -> _Scores:
    settings = recipe.evaluate
    mirrors = not (settings.flip_tta or recipe.model.preprocess.mirrors)
    crossing = cross_views(
        tested.manifest, tested.rows, by, seed=recipe.data.seed, draws=settings.draws, mirrors=mirrors
    )
    photos, remarks = _embedded(run, recipe, [tested], [crossing.rows], progress, mirrors=mirrors)
    cells, scored = score_cells(photos, crossing.cells, settings.resamples)
    same_cells, same_kinds = _shared(photos, crossing.shared, settings.resamples)
    shared = SharedMatrix(identities=len(crossing.identities), of=crossing.people, cells=same_cells, kinds=same_kinds)
    if crossing.unknown:
        remarks.append(f"{crossing.unknown} photos left out, as the manifest lacks their view or side")
    if settings.flip_tta:
        remarks.append("embeddings combine photo and mirror image, so mirrored queries would be the same")
    elif not mirrors:
        remarks.append("every photo shows the model a right hand, so mirrored queries would show left ones")
    kinds = pool_by_kind(photos, crossing.cells, scored, settings.resamples)
    return _Scores(cells, kinds, shared, crossing.cells, remarks)


def _shared(photos: Embedded, cells: Sequence[Cell], resamples: int) -> tuple[list[SharedCell], list[SharedKind]]:
    """Cells and kinds over the same people, each with its `difference_to_matched`."""
    entries, scored = score_cells(photos, cells, resamples)
    kinds = pool_by_kind(photos, cells, scored, resamples)
    of_cells, of_kinds = difference_to_matched(photos, cells, scored, resamples)
    return (
        [SharedCell(**dict(entry), against_same=lost) for entry, lost in zip(entries, of_cells, strict=True)],
        [SharedKind(**dict(entry), against_same=lost) for entry, lost in zip(kinds, of_kinds, strict=True)],
    )


def _over_datasets(run: Run, recipe: Recipe, tests: Sequence[UnseenTestSet], progress: Progress) -> _Scores:
    crossed = dataset_cells(tests)
    photos, remarks = _embedded(run, recipe, tests, [test.rows for test in tests], progress, mirrors=False)
    cells, scored = score_cells(photos, crossed, recipe.evaluate.resamples)
    kinds = pool_by_kind(photos, crossed, scored, recipe.evaluate.resamples)
    remarks.append("the gallery of another data set is added to the query's own: its people are distractors")
    return _Scores(cells, kinds, None, crossed, remarks)


def _embedded(
    run: Run,
    recipe: Recipe,
    tests: Sequence[UnseenTestSet],
    rows: Sequence[Int[np.ndarray, " _"]],
    progress: Progress,
    *,
    mirrors: bool,
) -> tuple[Embedded, list[str]]:
    """Embeds every photo once. Rows are offset by the sizes of the manifests before; mirror images follow theirs."""
    embedder, model_hash = load_embedder(run), file_hash(run.model)
    parts, numbers, remarks, start = [], [], [], 0
    for tested, photos in zip(tests, rows, strict=True):
        cached = read_cache(run, model_hash, progress)
        contents = contents_of(tested.manifest, photos, cached, progress, embedder.preprocessing)
        shots = Shots(tested.manifest, photos, recipe, embedder, progress)
        table = tested.manifest.table[photos]
        conditions, notes = side_information_of(embedder, table)
        turns = [embeddings_of(shots, contents, cached, conditions)]
        if mirrors:
            turned = side_information_of(embedder, _mirror_sides(table))[0]
            turns.append(embeddings_of(shots, contents, cached, turned, mirror=True))
        add_to_cache(run, tested.manifest, photos, contents, turns, model_hash, progress)
        for _, embeddings in turns:
            parts.append(embeddings)
            numbers.append(photos + start)
            start += len(tested.manifest)
        read = tested.manifest, photos, embedder.preprocessing, tested.name
        remarks += [*notes, *alignment_remarks(*read), *chirality_remarks(*read)]
    subjects = [f"{test.name}: {name}" for test in tests for name in test.subjects]
    return Embedded(np.concatenate(numbers), np.concatenate(parts), subjects, _cameras(tests)), remarks


def _cameras(tests: Sequence[UnseenTestSet]) -> list[str | None] | None:
    """Cameras of every row of every manifest; None where they do not count."""
    if any(test.cameras is None for test in tests):
        return None
    return [camera for test in tests for camera in test.cameras or ()]


def _mirror_sides(photos: pl.DataFrame) -> pl.DataFrame:
    """The manifest's rows for mirror images: a mirrored left hand is a right one, also as side information."""
    return photos.with_columns(pl.col("side").replace({"left": "right", "right": "left"}))


def _check_options(by: By, data: Sequence[Path], protocol: str | None) -> None:
    if by == "dataset" and protocol is not None:
        raise RunError("a matrix over dataset tests each data set by its own protocol; omit --protocol")
    if by == "dataset" and not data:
        raise RunError("a matrix over dataset needs other data sets than the run's own; give each with --data")
    if by != "dataset" and len(data) > 1:
        raise RunError(f"a matrix over {by} takes one manifest, not {len(data)}; for several use --matrix dataset")


def _each_once(paths: Sequence[Path]) -> list[Path]:
    """Each manifest once, as the run's own may be given too. Raises RunError when it is the only one."""
    by_hash = {read(path).hash: path for path in reversed(paths)}
    if len(by_hash) < 2:
        raise RunError(f"a matrix over dataset needs other data sets than the run's own; {paths[-1]} is the run's own")
    return list(reversed(by_hash.values()))


def _tested_on(tested: UnseenTestSet) -> TestedOn:
    names = tested.subjects
    return TestedOn(
        name=tested.name,
        **tested.protocol,
        subjects=len({names[row] for row in tested.rows}),
        photos=len(tested.rows),
        manifest=tested.manifest.hash,
    )


def _notes(tests: Sequence[UnseenTestSet]) -> list[str]:
    return [f"{test.name}: {note}" if len(tests) > 1 else note for test in tests for note in test.notes]


def _draws_hash(cells: Sequence[Cell], paths: Sequence[str], cameras: Sequence[str | None] | None) -> str:
    """Of all query and gallery photos: path, identity, whether mirrored, and camera where it counts."""
    digest = hashlib.sha256()
    taken_by = [[] if cameras is None else [cameras[row]] for row in range(len(paths))]
    for cell in cells:
        digest.update(json.dumps([cell.gallery, cell.query, cell.kind, cell.mirrored]).encode())
        for draw in cell.draws:
            for part in (draw.gallery, draw.query):
                photos = [(paths[row % len(paths)], taken_by[row % len(paths)], cell.identities[row]) for row in part]
                digest.update(json.dumps([[path, who, *camera] for path, camera, who in photos]).encode())
    return digest.hexdigest()


def _joined(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _place(run: Run, recipe: Recipe, by: By, content: Matrix, *, plain: bool) -> Path:
    parts: list[str] = [by] if plain else [by, content.hashes.draws[:8]]
    if content.hashes.manifest != run.facts["manifest_hash"]:  # other photos of the same names have the same draws
        parts.append(content.hashes.manifest[:8])
    if recipe.data.cameras == "cross":
        parts.append("cameras-cross")
    if recipe.evaluate.flip_tta != run.recipe.evaluate.flip_tta:
        parts.append("flip-tta" if recipe.evaluate.flip_tta else "plain")
    return run.folder / f"evaluation-matrix-{'-'.join(parts)}.json"
