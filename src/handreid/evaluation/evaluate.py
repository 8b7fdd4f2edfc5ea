"""A run on test identities: embeddings once, every metric from them, evaluation.json with what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from handreid.data.manifest import Manifest
from handreid.data.splits import evaluated_rows
from handreid.evaluation.duplicates import distinct_photos, remarks_on_copies
from handreid.evaluation.embedding_cache import (
    Contents,
    Kept,
    Key,
    Shown,
    contents_of,
    first_of_each,
    keep,
    kept_or_made,
    read_kept,
)
from handreid.evaluation.sections.inference_modes import TIMED, compare_modes, composes
from handreid.evaluation.sections.reranking import file_part, rerank_draws
from handreid.evaluation.sections.zero_shot import score_prompts
from handreid.files import check_folder_writable, file_hash, write_json
from handreid.inference import decoded, embedded, load_embedder
from handreid.metrics.query_scores import QueryScores, score, summarise
from handreid.metrics.separation import measure
from handreid.models.embedder import Embedder
from handreid.models.extraction import Conditions, Photos
from handreid.progress import Progress, Silent
from handreid.recipe import Recipe, Rerank, Tracker
from handreid.recipe.load import changed
from handreid.runs.dataset import Material, read_material
from handreid.runs.folder import Run, check_finished, environment
from handreid.runs.leakage import unseen
from handreid.runs.pretrained_weights import check_weights
from handreid.runs.side_information import conditions_of
from handreid.tracking.client import Sender, follow
from handreid.tracking.state import note_untold


def evaluate(
    run: Run,
    *,
    data: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    mirrored: bool | None = None,
    rerank: Sequence[Rerank] | None = None,
    progress: Progress | None = None,
    track: Sequence[Tracker] | None = None,
    sender: Sender | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The file written and its content: evaluation.json for the run's own data and protocol, else a name of its own.

    `changes` replaces keys of the recipe's `data` (protocol, label, aspect, cameras), `rerank` its ways of re-ranking.
    The trackers in `track` get the numbers, and no others, whatever the run's folder names. Of other photos than the
    run's own, people whom it knows are left out, and counted in `left_out`. Raises RunError for an unfinished run,
    ProtocolError when test subjects of its own photos were trained on, or nobody is left.
    """
    check_finished(run)
    check_folder_writable(run.folder, create=False)
    progress = progress or Silent()
    recipe = run.recipe
    own = read_material(recipe, Path(run.facts["manifest"])) if data is None else None
    asked = changed(recipe, changes or {}, mirrored, rerank)
    place = data or Path(run.facts["manifest"])
    material = own if own and asked.data == recipe.data else read_material(asked, place, trains=False)
    material, leaks, notes = unseen(run, material, progress)
    if asked.evaluate.prompts is not None:
        check_weights(run, asked)  # before the work: its text tower is read after it
    is_own = _is_own(run, recipe, asked, material)
    note_untold(run, track, (), progress)
    with follow(run, track or (), sender, progress, ended=True):
        content = _assess(run, asked, material, progress)
        content["left_out"] = [leak.entry() for leak in leaks]
        content["notes"] += notes
        path = run.evaluation if is_own else _named(run, recipe, asked, content)
        write_json(path, content, by_line=True)
    return path, content


def embeddings_of(
    shots: "Shots", contents: Contents, kept: Kept, conditions: Conditions | None, *, mirror: bool = False
) -> tuple[list[Key | None], Float[np.ndarray, "photos dim"]]:
    """Embeddings of all photos with the keys to keep them by; only what is not kept is decoded, each content once.

    `mirror`: of the mirror images, whose conditions are given. Raises PhotoError for a photo that is gone and not kept.
    """
    mirrored = shots.recipe.evaluate.mirrored
    shown: Shown = "mirror image" if mirror else "both" if mirrored else "photo"
    keys = contents.keys(conditions, shown, shots.embedder.head.inference if composes(shots.embedder) else None)

    def make(at: Int[np.ndarray, " position"]) -> Float[np.ndarray, "position dim"]:
        photos = shots.at(at)
        told = None if conditions is None else conditions[at]
        shown = photos[..., ::-1] if mirror else photos
        return embedded(shown, told, shots.recipe, shots.embedder, shots.progress)

    return keys, kept_or_made(kept, keys, make)


@dataclass(eq=False)
class Shots:
    """Photos of some rows of a manifest, decoded when they are asked for; the last ones stay decoded."""

    manifest: Manifest
    rows: Int[np.ndarray, " photo"]
    recipe: Recipe
    embedder: Embedder
    progress: Progress
    _last: tuple[Int[np.ndarray, " position"], Photos] | None = None

    def at(self, positions: Int[np.ndarray, " position"]) -> Photos:
        if self._last is None or not np.array_equal(self._last[0], positions):
            photos = decoded(self.manifest, self.rows[positions], self.recipe, self.embedder, self.progress)
            self._last = positions, photos
        return self._last[1]


def _assess(run: Run, recipe: Recipe, material: Material, progress: Progress) -> dict[str, Any]:
    embedder, model_hash = load_embedder(run), file_hash(run.model)
    manifest, split, chosen = material.manifest, material.split, recipe.evaluate
    rows = evaluated_rows(split)
    kept = read_kept(run, model_hash, progress)
    contents = contents_of(manifest, rows, kept, progress, pictures=True)
    conditions, remarks = conditions_of(embedder, manifest.table[rows])
    shots = Shots(manifest, rows, recipe, embedder, progress)
    keys, embeddings = embeddings_of(shots, contents, kept, conditions)
    keep(run, manifest, rows, contents, [(keys, embeddings)], model_hash, progress)
    scores = score(embeddings, rows, split.test, split.identities, cameras=split.cameras)
    views = np.array([view or "unknown" for view in manifest.views])
    once = distinct_photos(contents.pictures, rows, split)
    answered, unanswered = _views(views[scores.rows], scores)
    content: dict[str, Any] = {
        "recipe": recipe.name,
        "protocol": {
            "name": split.protocol,
            "label": split.label,
            "aspect": split.view or "all",
            "cameras": recipe.data.cameras,
        },
        **_summary(scores, np.ones(len(scores.rows), bool), material, chosen.resamples),
        "aspects": {
            view: _summary(scores, views[scores.rows] == view, material, chosen.resamples) for view in answered
        },
        "space": measure(
            embeddings[once],
            [split.identities[row] for row in rows[once]],
            [split.subjects[row] for row in rows[once]],
            resamples=chosen.resamples,
        ),
        "hashes": {**_hashes(material), "model": model_hash},
        "mirrored": chosen.mirrored,
        "notes": [*split.notes, *remarks, *remarks_on_copies(contents.pictures, rows, split), *unanswered],
        "environment": environment(),
    }
    content["counts"] |= {
        "gallery": len(split.test[0].gallery),
        "identities": len({split.identities[row] for draw in split.test for row in draw.query}),
        "draws": len(split.test),
        "dim": embedder.dim,
    }
    if chosen.rerank:
        content["reranked"] = rerank_draws(chosen, embeddings, rows, scores, views[scores.rows], split)
    first, _ = first_of_each([at if key is None else key for at, key in enumerate(keys)])
    told = None if conditions is None else conditions[first]
    if composes(embedder):
        made: list[tuple[list[Key | None], Float[np.ndarray, "photos dim"]]] = []

        def embed() -> Float[np.ndarray, "photos dim"]:
            made.append(embeddings_of(shots, contents, kept, conditions))
            return made[-1][1]

        timed = shots.at(first[:TIMED])
        content["inference"] = compare_modes(embedder, timed, embed, embeddings, rows, split, chosen)
        keep(run, manifest, rows, contents, made, model_hash, progress)
    if chosen.prompts is not None:
        content["prompts"] = score_prompts(
            run, recipe, chosen.prompts, embedder, shots.at(first), told, manifest, rows[first], progress
        )
    return content | _queries(scores, material)


def _views(views: np.ndarray, scores: QueryScores) -> tuple[list[str], list[str]]:
    """Views with a query that has a right answer, and notes on the others. `views` are those of the queries."""
    there, answered = ([str(view) for view in np.unique(some)] for some in (views, views[scores.answerable]))
    lost = [view for view in there if view not in answered]
    return answered, [f"no query of {view} has a right answer in its gallery, so it has no metrics" for view in lost]


def _summary(
    scores: QueryScores, chosen: Bool[np.ndarray, " entry"], material: Material, resamples: int
) -> dict[str, Any]:
    return summarise(scores, chosen, material.split.subjects, resamples=resamples, seed=0)


def _queries(scores: QueryScores, material: Material) -> dict[str, Any]:
    """Every query of every draw: its photo, its person, the ranks of its right answers, and that of its identity."""
    used = np.unique(scores.rows)
    first = scores.identity_ranks
    return {
        "photos": [material.split.paths[row] for row in used],
        "subjects": [material.split.subjects[row] for row in used],
        "draws": [
            {
                "query": np.searchsorted(used, scores.rows[scores.draws == number]).tolist(),
                "ranks": [r for r, n in zip(scores.ranks, scores.draws, strict=True) if n == number],
                **({} if first is None else {"identity_ranks": first[scores.draws == number].tolist()}),
            }
            for number in np.unique(scores.draws)
        ],
    }


def _is_own(run: Run, recipe: Recipe, asked: Recipe, material: Material) -> bool:
    same = run.facts["draws_hash"] == material.split.draws_hash
    alike = recipe.evaluate.mirrored == asked.evaluate.mirrored and recipe.evaluate.rerank == asked.evaluate.rerank
    return same and alike and recipe.data.aspect == asked.data.aspect


def _named(run: Run, recipe: Recipe, asked: Recipe, content: dict[str, Any]) -> Path:
    protocol = content["protocol"]
    parts = [protocol["name"], protocol["label"], protocol["aspect"], content["hashes"]["draws"][:8]]
    if protocol["cameras"] == "cross":
        parts.append("cameras-cross")
    if content["mirrored"]:
        parts.append("mirrored")
    if asked.evaluate.rerank != recipe.evaluate.rerank:
        parts.append(file_part(asked.evaluate.rerank))
    return run.folder / f"evaluation-{'-'.join(parts)}.json"


def _hashes(material: Material) -> dict[str, str]:
    return {"manifest": material.manifest.hash, "split": material.split.hash, "draws": material.split.draws_hash}
