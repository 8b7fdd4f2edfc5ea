"""The page's saliency maps of queries, and of pairs of a query and its first answer."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from handreid.data.loading import decode
from handreid.explain.saliency import CAVEATS, METHODS, caveat, match_maps, saliency
from handreid.inference import load_embedder
from handreid.models.embedder import Embedder
from handreid.progress import Progress
from handreid.report.figures.overlay import overlay
from handreid.report.figures.strip_selection import Strip
from handreid.report.photos.model_input import model_input_image
from handreid.report.photos.test_photos import TestPhotos
from handreid.report.photos.thumbnails import data_url
from handreid.runs.side_information import side_information_of

_SIDE = 224  # pixels
_PER_RULE = 2  # queries of each rule, and as many pairs


def looks(tested: TestPhotos, strips: Sequence[Strip], progress: Progress) -> dict[str, Any]:
    """Saliency maps of the first queries of each rule, and match maps of these queries with their first answers."""
    embedder = load_embedder(tested.run)
    selected = _selected(strips)
    with progress.step("mapping what the model sees", 2 * len(selected), "maps") as advance:
        photos, conditions = _model_inputs(tested, embedder, [strip.query for strip in selected])
        maps, method = saliency(embedder, photos, conditions)
        advance(len(selected))
        pairs = []
        for strip in selected:
            pairs.append(_pair(tested, embedder, strip))
            advance(1)
    return {
        "warning": f"{caveat(embedder, 'auto')} For matches: {CAVEATS['occlusion']}",
        "caption": f"The first {_PER_RULE} queries of each rule above, as the model sees them, by {method}. The line "
        "is at half of the largest value.",
        "photos": [
            _photo(tested, embedder, strip, saliency_map) for strip, saliency_map in zip(selected, maps, strict=True)
        ],
        "pairs": pairs,
        "pairs_caption": f"The same queries, each with its first answer, by {METHODS['occlusion']}. Orange: the cosine "
        "falls if that part is blurred; blue: it rises. Both photos of a pair have one scale.",
    }


def _selected(strips: Sequence[Strip]) -> list[Strip]:
    rules = dict.fromkeys(strip.rule for strip in strips)
    return [
        strip for rule in rules for strip in [candidate for candidate in strips if candidate.rule == rule][:_PER_RULE]
    ]


def _model_inputs(
    tested: TestPhotos, embedder: Embedder, photos: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Photos preprocessed for the model, and their side information."""
    pixels = np.stack([decode(tested.files[photo], embedder.preprocessing) for photo in photos])
    conditions, _ = side_information_of(embedder, tested.manifest.table[tested.rows[list(photos)]])
    return torch.from_numpy(pixels), None if conditions is None else torch.from_numpy(conditions)


def _photo(tested: TestPhotos, embedder: Embedder, strip: Strip, values: np.ndarray) -> dict[str, Any]:
    picture = model_input_image(tested.files[strip.query], embedder.preprocessing, pixels=_SIDE)
    return {
        "words": f"{strip.rule}: {_name(tested, strip.query)}",
        "plain": data_url(picture),
        "over": data_url(overlay(picture, values)),
    }


def _pair(tested: TestPhotos, embedder: Embedder, strip: Strip) -> dict[str, Any]:
    answer = strip.hits[0]
    photos, conditions = _model_inputs(tested, embedder, [strip.query, answer.photo])
    match = match_maps(embedder, photos[0], photos[1], conditions, flip_tta=tested.recipe.evaluate.flip_tta)
    scale = max(float(np.abs(match.left).max()), float(np.abs(match.right).max()))

    def overlay_url(photo: int, values: np.ndarray) -> str:
        picture = model_input_image(tested.files[photo], embedder.preprocessing, pixels=_SIDE)
        return data_url(overlay(picture, values, scale=scale, signed=True))

    return {
        "query": _name(tested, strip.query),
        "gallery": _name(tested, answer.photo),
        "left": overlay_url(strip.query, match.left),
        "right": overlay_url(answer.photo, match.right),
        "similarity": match.similarity,
        "correct": answer.right,
    }


def _name(tested: TestPhotos, photo: int) -> str:
    return f"{tested.identities[photo]}, {PurePosixPath(tested.names[photo]).name}"
