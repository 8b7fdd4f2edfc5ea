"""A run on test identities: embeddings once, every metric from them, evaluation.json with what they rest on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from handreid.data.loading import decode_all
from handreid.data.manifest import Manifest
from handreid.data.splits import Split
from handreid.evaluation.compactness import measure
from handreid.evaluation.extraction import Conditions, Photos, embed_photos, joint_features
from handreid.evaluation.intervals import intervals
from handreid.evaluation.protocol import QueryScores, score, summarise
from handreid.evaluation.zero_shot import classify, view_index
from handreid.files import check_folder_writable, file_hash, write_json
from handreid.models.embedder import Embedder
from handreid.progress import Progress, Silent
from handreid.recipe import Prompts, Recipe, Rerank, Tracker
from handreid.training.conditions import conditions_of
from handreid.training.inference_modes import compare_modes
from handreid.training.kept_embeddings import keep_embeddings
from handreid.training.leakage import unseen
from handreid.training.material import Material, read_material
from handreid.training.own_weights import check_weights, towers_of
from handreid.training.reranked import file_part, rerank_draws
from handreid.training.runs import Run, check_finished, environment, finished_model
from handreid.training.tracking.memory import note_untold
from handreid.training.tracking.sender import Sender, follow


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

    `changes` replaces keys of the recipe's `data` (protocol, label, aspect), `rerank` its ways of re-ranking. The
    trackers in `track` get the numbers, and no others, whatever the run's folder names. Of other photos than the run's
    own, people whom it knows are left out, and counted in `left_out`. Raises RunError for an unfinished run,
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
        content = _assess(run, asked, material, progress, keep=is_own)
        content["left_out"] = [leak.entry() for leak in leaks]
        content["notes"] += notes
        path = run.evaluation if is_own else _named(run, recipe, asked, content)
        write_json(path, content, by_line=True)
    return path, content


def load_embedder(run: Run) -> Embedder:
    """The run's model, on the GPU if there is one. Raises RunError when it is not as it was written."""
    return Embedder.load(finished_model(run)).to("cuda" if torch.cuda.is_available() else "cpu")


def decoded(
    manifest: Manifest, rows: Int[np.ndarray, " photo"], recipe: Recipe, embedder: Embedder, progress: Progress
) -> Photos:
    """The photos of some rows, as the model wants them."""
    paths = manifest.paths()
    return decode_all([paths[row] for row in rows], embedder.preprocessing, cache=recipe.data.cache, progress=progress)


def embedded(
    photos: Photos, conditions: Conditions | None, recipe: Recipe, embedder: Embedder, progress: Progress
) -> Float[np.ndarray, "photos dim"]:
    """Embeddings as the recipe evaluates them."""
    chosen = recipe.evaluate
    return embed_photos(
        embedder,
        photos,
        conditions=conditions,
        batch_size=chosen.batch_size,
        mirrored=chosen.mirrored,
        progress=progress,
    )


def tested_rows(split: Split) -> Int[np.ndarray, " photo"]:
    """Every photo that is searched for or among in any test draw, once, ascending."""
    return np.unique(np.concatenate([part for draw in split.test for part in (draw.gallery, draw.query)]))


def changed(
    recipe: Recipe, changes: Mapping[str, Any], mirrored: bool | None, rerank: Sequence[Rerank] | None = None
) -> Recipe:
    """The recipe with other keys of `data`, None for those that stay, mirrored photos or not, re-ranked otherwise."""
    raw = recipe.model_dump()
    raw["data"] |= {name: value for name, value in changes.items() if value is not None}
    if mirrored is not None:
        raw["evaluate"]["mirrored"] = mirrored
    if rerank is not None:
        raw["evaluate"]["rerank"] = [way.model_dump() for way in rerank]
    return Recipe.model_validate(raw)


def _assess(run: Run, recipe: Recipe, material: Material, progress: Progress, *, keep: bool = False) -> dict[str, Any]:
    embedder = load_embedder(run)
    split = material.split
    rows = tested_rows(split)
    photos = decoded(material.manifest, rows, recipe, embedder, progress)
    conditions, remarks = conditions_of(embedder, material.manifest.table[rows])
    embeddings = embedded(photos, conditions, recipe, embedder, progress)
    chosen = recipe.evaluate
    if keep:
        keep_embeddings(run, material.manifest, rows, embeddings, mirrored=chosen.mirrored)
    scores = score(embeddings, rows, split.test, split.identities)
    views = np.array([view or "unknown" for view in material.manifest.views])
    content: dict[str, Any] = {
        "recipe": recipe.name,
        "protocol": {"name": split.protocol, "label": split.label, "aspect": split.view or "all"},
        **_summary(scores, np.ones(len(scores.rows), bool), material, chosen.resamples),
        "aspects": {
            str(view): _summary(scores, views[scores.rows] == view, material, chosen.resamples)
            for view in np.unique(views[scores.rows])
        },
        "space": measure(
            embeddings,
            [split.identities[row] for row in rows],
            [split.subjects[row] for row in rows],
            resamples=chosen.resamples,
        ),
        "hashes": {**_hashes(material), "model": file_hash(run.model)},
        "mirrored": chosen.mirrored,
        "notes": [*split.notes, *remarks],
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
    modes = compare_modes(embedder, photos, conditions, embeddings, rows, split, chosen, progress)
    if modes is not None:
        content["inference"] = modes
    if chosen.prompts is not None:
        content["prompts"] = _prompts(
            run, recipe, chosen.prompts, embedder, photos, conditions, rows, material, progress
        )
    return content | _queries(scores, material)


def _summary(
    scores: QueryScores, chosen: Bool[np.ndarray, " entry"], material: Material, resamples: int
) -> dict[str, Any]:
    return summarise(scores, chosen, material.split.subjects, resamples=resamples, seed=0)


def _prompts(
    run: Run,
    recipe: Recipe,
    prompts: Prompts,
    embedder: Embedder,
    photos: Photos,
    conditions: Conditions | None,
    rows: Int[np.ndarray, " photos"],
    material: Material,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Zero-shot aspect classification of the test photos, with intervals over subjects, per template and ensemble."""
    table = material.manifest.table
    views = view_index(table["aspect"].gather(rows).to_list(), table["side"].gather(rows).to_list())
    known = views >= 0
    if not known.any():
        return []
    text = towers_of(run, recipe).text.eval()
    with torch.inference_mode():
        size = recipe.evaluate.batch_size
        images = joint_features(embedder, photos, conditions=conditions, batch_size=size, progress=progress)
        found = classify(images[known], views[known], prompts.templates, text.encode)
    owner = np.unique([material.split.subjects[row] for row in rows[known]], return_inverse=True)[1]
    entries = []
    for one in found:
        values = {"view": one.view, "aspect": one.aspect, "side": one.side}
        bounds = intervals({k: v.astype(float) for k, v in values.items()}, owner, resamples=recipe.evaluate.resamples)
        accuracies = {k: {"value": b.value, "low": b.low, "high": b.high} for k, b in bounds.items()}
        entries.append({"template": one.template, "photos": int(known.sum()), "accuracy": accuracies})
    return entries


def _queries(scores: QueryScores, material: Material) -> dict[str, Any]:
    """Every query of every draw: its photo, its person, and the ranks of its right answers."""
    used = np.unique(scores.rows)
    return {
        "photos": [material.split.paths[row] for row in used],
        "subjects": [material.split.subjects[row] for row in used],
        "draws": [
            {
                "query": np.searchsorted(used, scores.rows[scores.draws == number]).tolist(),
                "ranks": [r for r, n in zip(scores.ranks, scores.draws, strict=True) if n == number],
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
    if content["mirrored"]:
        parts.append("mirrored")
    if asked.evaluate.rerank != recipe.evaluate.rerank:
        parts.append(file_part(asked.evaluate.rerank))
    return run.folder / f"evaluation-{'-'.join(parts)}.json"


def _hashes(material: Material) -> dict[str, str]:
    return {"manifest": material.manifest.hash, "split": material.split.hash, "draws": material.split.draws_hash}
