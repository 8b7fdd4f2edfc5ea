"""The only place that turns a recipe's data into objects; constructors elsewhere take plain arguments."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from handreid.data import mixing
from handreid.data.augment import BackgroundAffine, BorderFilled
from handreid.data.background import ChangeBackground, read_backgrounds
from handreid.data.mixing import Mix
from handreid.data.samplers import BalancedBatches, HardIdentityBatches, PkBatches
from handreid.data.sampling import Batches, BatchSampler, RandomBatches
from handreid.errors import RecipeError
from handreid.metrics.k_reciprocal import rerank_matches
from handreid.metrics.query_expansion import Side, expand_matches
from handreid.metrics.query_scores import Ranker
from handreid.models.backbone import Backbone
from handreid.models.clip import ClipTowers, load_clip
from handreid.models.clip_weights import trained_normalisation
from handreid.models.embedder import Embedder
from handreid.models.heads import Head
from handreid.objectives.custom import CustomObjective, make_module
from handreid.objectives.objective import Objective
from handreid.objectives.table import OBJECTIVES
from handreid.recipe import FineTune, KReciprocal, Pretrain, QueryExpansion, Recipe, Rerank
from handreid.recipe.augmentations import (
    Affine,
    Augmentation,
    AugMix,
    Background,
    ColourJitter,
    Crop,
    Padding,
    Perspective,
    RandAugment,
    RandomErasing,
)
from handreid.recipe.custom_term import CustomTerm
from handreid.recipe.objectives import AnyTerm, TextTerm, term_name
from handreid.recipe.samplers import BalancedSampler, HardIdentitySampler, PkSampler
from handreid.recipe.term import LearnedTerm
from handreid.types import Alignment, Chirality, FeatureName, Preprocessing, Triple

NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def build_towers(recipe: Recipe) -> ClipTowers:
    backbone = recipe.model.backbone
    return load_clip(
        backbone.name,
        weights=backbone.weights,
        towers=backbone.towers,
        image_size=backbone.image_size,
        stride=backbone.stride,
        config=backbone.config,
        seed=recipe.seed,
    )


def build_embedder(
    recipe: Recipe, towers: ClipTowers, combinations: Sequence[tuple[str, ...]] | None = None
) -> Embedder:
    """The embedder before any stage: towers' weights, fresh additions to them, a fresh head.

    `combinations` are the training photos' combinations of side information, see `side_information.seen_combinations`.
    """
    backbone = _backbone(recipe, towers, combinations)
    test = recipe.model.test_feature
    features, necks = _features(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        return Embedder(
            backbone,
            build_preprocessing(recipe, backbone.size),
            head=recipe.model.head.model_dump(),
            features=features,
            necks=necks,
            test_features=test.features,
            test_neck=test.neck,
            text=towers.text if recipe.model.head.makes_texts else None,
        ).eval()


def _backbone(recipe: Recipe, towers: ClipTowers, combinations: Sequence[tuple[str, ...]] | None) -> Backbone:
    prompts, side = recipe.model.backbone.visual_prompts, recipe.model.side_information
    combination_lists = {"combinations": [list(values) for values in combinations or ()]}
    with torch.random.fork_rng(devices=[]):  # separate, so the head's initial weights do not depend on additions here
        torch.default_generator.manual_seed(recipe.seed)
        return Backbone(
            towers.image,
            towers.config,
            visual_prompts=None if prompts is None else prompts.model_dump(),
            side_information=None if side is None else side.model_dump(mode="json") | combination_lists,
        )


def build_preprocessing(recipe: Recipe, size: tuple[int, int]) -> Preprocessing:
    """Raises RecipeError when a pretrained tag was trained with another mean and standard deviation."""
    settings = recipe.model.preprocess
    mean, std = NORMALISATIONS[settings.normalise]
    trained = trained_normalisation(recipe.model.backbone.name, recipe.model.backbone.weights)
    if trained is not None and trained != (mean, std):
        right = next((name for name, values in NORMALISATIONS.items() if values == trained), None)
        raise RecipeError(
            f"model.preprocess.normalise is {settings.normalise!r}, but the weights {recipe.model.backbone.weights!r} "
            f"were trained with mean {trained[0]} and std {trained[1]}" + (f": use {right!r}" if right else "")
        )
    alignment = None
    if settings.align == "auto":
        raise RecipeError(
            "model.preprocess.align is auto, which photos decide: train the recipe, or write hand or none"
        )
    if settings.align != "none":
        alignment = Alignment(settings.align, settings.fill, settings.margin, settings.without_hand)
    chirality = Chirality(settings.unknown_side) if settings.mirrors else None
    return Preprocessing(size, mean, std, settings.resize, settings.interpolation, alignment, chirality)


def build_objectives(
    stage: FineTune, head: Head, identities: int, seed: int, texts: Tensor | None = None
) -> nn.ModuleDict:
    """Objectives by name in the order of the recipe; their weights and rates stay in the recipe.

    `texts` are the identities' text features, for objectives that read them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.ModuleDict(
            {
                f"{n}_{term_name(term)}": _objective(term, head, identities, texts)
                for n, term in enumerate(stage.objectives)
            }
        )


def _objective(term: AnyTerm, head: Head, identities: int, texts: Tensor | None = None) -> Objective:
    """The class in `OBJECTIVES` for the term's kind, with the arguments that `Objective` describes."""
    if isinstance(term, CustomTerm):
        return CustomObjective(_custom_module(term, head, identities), term_name(term))
    objective = OBJECTIVES[term.kind]
    arguments = {name: value for name, value in term if name not in ("kind", "weight", "lr", "features")}
    if isinstance(term, TextTerm):
        return objective(texts, **arguments)
    names = head.names(term.features)
    if not isinstance(term, LearnedTerm):
        return objective(names, **arguments)
    return objective(_widths(head, names, arguments.get("neck")), identities, **arguments)


def _custom_module(term: CustomTerm, head: Head, identities: int) -> nn.Module:
    if term.module is not None:
        module: nn.Module = copy.deepcopy(term.module)
        return module
    if term.fingerprint is not None:
        raise RecipeError(
            f"objective {term.kind} was given as an object from Python, and with what it was made is written nowhere. "
            "Train or resume this recipe from Python, with an object that is made the same way: "
            "handreid.train(recipe, data, out, resume=True)"
        )
    names = head.names(term.features)
    widths = _widths(head, names, term.neck)
    offered = {"features": names, "widths": widths, "identities": identities, "neck": term.neck}
    return make_module(term.kind, term.arguments, offered)


def _widths(head: Head, names: tuple[str, ...], neck: object) -> dict[str, int]:
    widths = head.before if neck == "before" else head.after
    return {name: widths[name] for name in names}


def build_batches(stage: FineTune | Pretrain, labels: np.ndarray, groups: np.ndarray | None, *, seed: int) -> Batches:
    """A function that draws an epoch's batches of photos with these labels. A balanced sampler balances `groups`."""

    def batches(epoch: int, rank: int, world_size: int, centres: np.ndarray | None) -> BatchSampler:
        draw = {"seed": seed, "epoch": epoch, "rank": rank, "world_size": world_size}
        match stage.sampler:
            case PkSampler(identities=identities, images=images, every=every):
                return PkBatches(labels, identities, images, every=every, **draw)
            case BalancedSampler():
                assert groups is not None  # noqa: S101 - for the type checker
                return BalancedBatches(groups, stage.photos_per_batch, **draw)
            case HardIdentitySampler(identities=identities, images=images, neighbours=neighbours):
                return HardIdentityBatches(labels, centres, identities, images, neighbours=neighbours, **draw)
            case _:
                return RandomBatches(len(labels), stage.photos_per_batch, **draw)

    return batches


def build_mix(stage: FineTune) -> Mix | None:
    """Mixup or CutMix of a batch; None when photos are not mixed."""
    if stage.mix is None:
        return None
    mix = mixing.Mixup if stage.mix.kind == "mixup" else mixing.CutMix
    return mix(stage.mix.alpha, stage.mix.probability)


def enlargement(stage: FineTune | Pretrain) -> float:
    """The factor by which photos are decoded larger than the model's input for training."""
    crops = [step.enlarge for step in stage.augment if isinstance(step, Crop)]
    return max(crops, default=1.0)


def build_augment(stage: FineTune | Pretrain, preprocessing: Preprocessing) -> v2.Compose:
    """The augmentations of training, from a PIL image to a uint8 tensor: flips first, then the recipe's in their order,
    random erasing last. Raises DataError if a folder of backgrounds is missing or holds no photo.
    """
    flips = [v2.RandomHorizontalFlip()] if stage.chirality == "flip" else []
    side = round(max(preprocessing.size) * enlargement(stage))
    augmentations = [_augmentation(step, preprocessing.size, side, preprocessing.mean) for step in stage.augment]
    erasing = [
        step for step in augmentations if isinstance(step, v2.RandomErasing)
    ]  # takes tensors, all others take pictures
    return v2.Compose([*flips, *(step for step in augmentations if step not in erasing), v2.PILToTensor(), *erasing])


def _augmentation(step: Augmentation, size: tuple[int, int], side: int, mean: Triple) -> Any:  # torchvision is untyped
    """A transform to a picture of the input's `size` from one of up to `side` pixels in width and height."""
    match step:
        case Crop():
            return v2.RandomCrop(size)
        case Padding(pixels=pixels):
            return v2.RandomCrop(size, padding=pixels, padding_mode="edge")
        case Affine(degrees=degrees, translate=translate, zoom=zoom):
            return BackgroundAffine(degrees, translate, zoom)
        case Perspective(distortion=distortion, probability=probability):
            return BorderFilled(partial(v2.RandomPerspective, distortion, probability))
        case Background(probability=probability, folder=folder):
            return ChangeBackground(probability, read_backgrounds(folder, side) if folder else None)
        case RandAugment(operations=operations, magnitude=magnitude):
            augmentation = partial(v2.RandAugment, 1, magnitude, interpolation=v2.InterpolationMode.BILINEAR)
            return v2.Compose(
                [BorderFilled(augmentation) for _ in range(operations)]
            )  # each determines the border again
        case AugMix(severity=severity, chains=chains):
            return BorderFilled(partial(v2.AugMix, severity, chains))
        case ColourJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue):
            return v2.ColorJitter(brightness, contrast, saturation, hue)
        case RandomErasing(probability=probability, area=area):
            return v2.RandomErasing(probability, scale=area, ratio=(0.3, 3.3), value=[round(255 * m) for m in mean])


def build_ranker(way: Rerank) -> Ranker:
    if isinstance(way, KReciprocal):
        return partial(rerank_matches, k1=way.k1, k2=way.k2, original=way.lambda_, formula=way.formula)
    side: Side = "query" if isinstance(way, QueryExpansion) else "gallery"
    return partial(expand_matches, neighbours=way.neighbours, alpha=way.alpha, side=side)


def _features(recipe: Recipe) -> tuple[tuple[FeatureName, ...], tuple[FeatureName, ...]]:
    """Features of the backbone that are compared or read by an objective; and those of them read after the neck."""
    test = recipe.model.test_feature
    read = [(name, test.neck) for name in test.features]
    for stage in recipe.stages:
        for term in stage.feature_terms:
            read += [(name, getattr(term, "neck", "after")) for name in term.features]
    names: tuple[FeatureName, ...] = get_args(FeatureName)
    used = tuple(name for name in names if name != "parts" and name in {name for name, _ in read})
    return used, tuple(name for name in used if (name, "after") in read)
