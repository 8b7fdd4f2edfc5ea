"""What words see: zero-shot aspect classification of a run's test photos."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from handreid.data.manifest import Manifest
from handreid.evaluation.extraction import Conditions, Photos, joint_features
from handreid.evaluation.intervals import intervals
from handreid.evaluation.zero_shot import classify, view_index
from handreid.models.embedder import Embedder
from handreid.progress import Progress
from handreid.recipe import Prompts, Recipe
from handreid.training.own_weights import towers_of
from handreid.training.runs import Run


def score_prompts(
    run: Run,
    recipe: Recipe,
    prompts: Prompts,
    embedder: Embedder,
    photos: Photos,
    conditions: Conditions | None,
    manifest: Manifest,
    rows: Int[np.ndarray, " photos"],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Accuracies with intervals over subjects, per template and of the ensemble; `rows` are those of the photos."""
    table = manifest.table
    views = view_index(table["aspect"].gather(rows).to_list(), table["side"].gather(rows).to_list())
    known = views >= 0
    if not known.any():
        return []
    text = towers_of(run, recipe).text.eval()
    with torch.inference_mode():
        size = recipe.evaluate.batch_size
        images = joint_features(embedder, photos, conditions=conditions, batch_size=size, progress=progress)
        found = classify(images[known], views[known], prompts.templates, text.encode)
    owner = np.unique(table["subject"].gather(rows[known]).to_list(), return_inverse=True)[1]
    entries = []
    for one in found:
        values = {"view": one.view, "aspect": one.aspect, "side": one.side}
        bounds = intervals({k: v.astype(float) for k, v in values.items()}, owner, resamples=recipe.evaluate.resamples)
        accuracies = {k: {"value": b.value, "low": b.low, "high": b.high} for k, b in bounds.items()}
        entries.append({"template": one.template, "photos": int(known.sum()), "accuracy": accuracies})
    return entries
