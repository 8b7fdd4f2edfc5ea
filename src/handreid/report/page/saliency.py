"""Where the model looks, and what made two photos alike, as pictures of the page."""

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
_PER_RULE = 2  # queries of each rule; so many pairs, too


def looks(tested: TestPhotos, strips: Sequence[Strip], progress: Progress) -> dict[str, Any]:
    """Maps over the first queries of each rule, and over these and their first answers."""
    embedder = load_embedder(tested.run)
    chosen = _chosen(strips)
    with progress.step("mapping what the model sees", 2 * len(chosen), "maps") as advance:
        photos, conditions = _taken(tested, embedder, [strip.query for strip in chosen])
        maps, method = saliency(embedder, photos, conditions)
        advance(len(chosen))
        pairs = []
        for strip in chosen:
            pairs.append(_pair(tested, embedder, strip))
            advance(1)
    return {
        "warning": f"{caveat(embedder, 'auto')} For matches: {CAVEATS['occlusion']}",
        "caption": f"The first {_PER_RULE} queries of each rule above, as the model sees them, by {method}. The line "
        "is at half of the largest value.",
        "photos": [_photo(tested, embedder, strip, one) for strip, one in zip(chosen, maps, strict=True)],
        "pairs": pairs,
        "pairs_caption": f"The same queries, each with its first answer, by {METHODS['occlusion']}. Orange: the cosine "
        "falls if that part is blurred; blue: it rises. Both photos of a pair have one scale.",
    }


def _chosen(strips: Sequence[Strip]) -> list[Strip]:
    rules = dict.fromkeys(strip.rule for strip in strips)
    return [strip for rule in rules for strip in [one for one in strips if one.rule == rule][:_PER_RULE]]


def _taken(tested: TestPhotos, embedder: Embedder, photos: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As the model takes them, with what it is told beside the pixels."""
    pixels = np.stack([decode(tested.paths[photo], embedder.preprocessing) for photo in photos])
    known, _ = side_information_of(embedder, tested.manifest.table[tested.rows[list(photos)]])
    return torch.from_numpy(pixels), None if known is None else torch.from_numpy(known)


def _photo(tested: TestPhotos, embedder: Embedder, strip: Strip, values: np.ndarray) -> dict[str, Any]:
    seen = model_input_image(tested.paths[strip.query], embedder.preprocessing, pixels=_SIDE)
    return {
        "words": f"{strip.rule}: {_name(tested, strip.query)}",
        "plain": data_url(seen),
        "over": data_url(overlay(seen, values)),
    }


def _pair(tested: TestPhotos, embedder: Embedder, strip: Strip) -> dict[str, Any]:
    first = strip.hits[0]
    photos, known = _taken(tested, embedder, [strip.query, first.photo])
    match = match_maps(embedder, photos[0], photos[1], known, flip_tta=tested.recipe.evaluate.flip_tta)
    scale = max(float(np.abs(match.left).max()), float(np.abs(match.right).max()))

    def shown(photo: int, values: np.ndarray) -> str:
        seen = model_input_image(tested.paths[photo], embedder.preprocessing, pixels=_SIDE)
        return data_url(overlay(seen, values, scale=scale, signed=True))

    return {
        "query": _name(tested, strip.query),
        "gallery": _name(tested, first.photo),
        "left": shown(strip.query, match.left),
        "right": shown(first.photo, match.right),
        "similarity": match.similarity,
        "correct": first.right,
    }


def _name(tested: TestPhotos, photo: int) -> str:
    return f"{tested.identities[photo]}, {PurePosixPath(tested.names[photo]).name}"
