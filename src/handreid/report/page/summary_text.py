"""A paragraph on each run, made from the recipe and the counts of the evaluation."""

from handreid.recipe import Recipe
from handreid.recipe.model import Backbone
from handreid.report.compare.runs import Compared, Comparison
from handreid.runs.results import Evaluation, Metric
from handreid.training.phrases import counted, joined
from handreid.training.stages.registry import stage_of

_HEADS = {
    "linear": "no head",
    "bnneck": "a BNNeck",
    "mlp": "a projection of two layers",
    "pcb": "PCB's stripes",
    "mgn": "MGN's branches",
    "gem": "generalised-mean pooling",
    "attention": "attention pooling",
    "promptsg": "PromptSG's sentences",
    "promptsg_graph": "sentences from a graph of prototypes",
}
_PROTOCOLS = {
    "hands11k": "the 11k Hands papers' protocol",
    "hd": "the protocol of PolyU HD",
    "disjoint": "an identity-disjoint split",
    "prepared": "the manifest's own split",
}

IDENTITY = {"subject": "a person", "hand": "a hand", "view": "one view of a hand"}


def describe_run(recipe: Recipe, evaluation: Evaluation | None) -> str:
    """One run: tower, stages, queries and galleries."""
    sentences = [
        *_preprocessing(recipe),
        _tower(recipe),
        *(_stage(number, recipe) for number in range(len(recipe.stages))),
    ]
    if not recipe.stages:
        sentences.append("Nothing was trained: the features are those of the pretrained encoder.")
    if evaluation is not None:
        sentences.append(_tested(evaluation))
    return " ".join(sentences)


def _preprocessing(recipe: Recipe) -> list[str]:
    """What is done to hands before they are resized; nothing by default."""
    settings = recipe.model.preprocess
    align = {
        "hand": "wrist and knuckles are brought to fixed places",
        "upright": "hands are turned upright",
    }
    done = [align[settings.align]] if settings.align in align else []
    done += ["photos of left hands are mirrored to right ones"] if settings.mirrors else []
    return [f"Before the model, {joined(done)}."] if done else []


def _tower(recipe: Recipe) -> str:
    backbone = recipe.model.backbone
    size = backbone.image_size
    pixels = "" if size is None else f" at {size if isinstance(size, int) else ' x '.join(map(str, size))} pixels"
    start = f", starting from the encoder of {recipe.init_from}" if recipe.init_from else ""
    added = [] if backbone.visual_prompts is None else [_visual_prompts(backbone)]
    if recipe.model.side_information is not None:
        added.append(f"a learned vector per {' and '.join(recipe.model.side_information.columns)}")
    head = _HEADS.get(recipe.model.head.kind, recipe.model.head.kind)
    return (
        f"The encoder is {backbone.name}{pixels} with {_weights(backbone)}{start}"
        f"{', and ' + ' and '.join(added) if added else ''}; photos are compared by its "
        f"{' and '.join(recipe.model.test_feature.features)} features behind {head}, by cosine."
    )


def _visual_prompts(backbone: Backbone) -> str:
    prompts = backbone.visual_prompts
    assert prompts is not None  # noqa: S101 - for the type checker
    return (
        f"{prompts.tokens} visual prompts {'in every block' if prompts.depth == 'deep' else 'before the first block'}"
    )


def _weights(backbone: Backbone) -> str:
    if backbone.weights == "none":
        return "random weights"
    if backbone.weights == "openai":
        return "OpenAI's CLIP weights"
    return f"the weights {backbone.weights.replace(chr(92), '/').rsplit('/', 1)[-1]}"


def _stage(number: int, recipe: Recipe) -> str:
    which = "In training" if len(recipe.stages) == 1 else f"In stage {number}"
    return f"{which}, {stage_of(recipe, number).describe()}."


def _tested(evaluation: Evaluation) -> str:
    counts, protocol = evaluation.counts, evaluation.protocol
    view = "" if protocol.view == "all" else f", {protocol.view.replace('-', ' ')} hands only"
    return (
        f"It was tested with {_PROTOCOLS.get(protocol.name, protocol.name)}{view}: {counts.most_queries:,} queries of "
        f"{counts.subjects:,} unseen subjects, searched among {counts.gallery:,} gallery photos "
        f"in each of {counted(counts.draws, 'seeded draw')}; an identity is {IDENTITY[protocol.label]}."
    )


def headline(comparison: Comparison, displayed: Compared) -> str:
    """The result in one or two sentences: the displayed run's rank-1, and how many runs beat the reference."""
    best = displayed.evaluation.metrics["rank1"]
    rank1 = f"{100 * best.value:.1f} % {_range(best)}"
    sentence = f"{displayed.name} finds the right hand first in {rank1} of the queries, on unseen subjects."
    compared = [run for run in comparison.runs if run.name != comparison.reference]
    if not compared:
        return sentence
    differences = [run.against.get(comparison.by) for run in compared]
    count = {
        word: sum(difference.verdict == word for difference in differences if difference)
        for word in ("better", "worse", "within noise")
    }
    if not any(count.values()):
        return sentence
    parts = [f"{number} {'is' if number == 1 else 'are'} {word}" for word, number in count.items() if number]
    which = f"of the other {len(compared)} runs " if len(compared) > 1 else "of the other run "
    return f"{sentence} Compared with {comparison.reference}, {which}{joined(parts)}."


def facts(comparison: Comparison, displayed: Compared) -> list[dict[str, str]]:
    """The main numbers, for the top of the page."""
    metrics, counts = displayed.evaluation.metrics, displayed.evaluation.counts
    accuracies = [
        {
            "name": name,
            "value": f"{100 * metrics[key].value:.1f} %",
            "note": f"{_range(metrics[key])}, {displayed.name}",
        }
        for name, key in (("rank-1", "rank1"), ("mAP", "map"))
    ]
    return [
        *accuracies,
        {"name": "people tested", "value": f"{counts.subjects:,}", "note": f"{counts.identities:,} identities"},
        {"name": "queries", "value": f"{counts.most_queries:,}", "note": f"in each of {counted(counts.draws, 'draw')}"},
        {"name": "gallery", "value": f"{counts.gallery:,}", "note": "photos, one of each identity"},
        *(
            [{"name": "runs", "value": str(len(comparison.runs)), "note": "compared"}]
            if len(comparison.runs) > 1
            else []
        ),
    ]


def paragraphs(comparison: Comparison, displayed: Compared) -> list[str]:
    """A paragraph on the displayed run. With several runs, a sentence first that says where their differences are."""
    if len(comparison.runs) == 1:
        return [describe_run(displayed.recipe, displayed.evaluation)]
    several = (
        f"{len(comparison.runs)} runs were evaluated; the table below the results shows how their recipes differ. "
        f"The following describes {displayed.name}, whose test photos are shown on this page."
    )
    return [several, describe_run(displayed.recipe, displayed.evaluation)]


def _range(metric: Metric) -> str:
    return f"[{100 * metric.low:.1f}, {100 * metric.high:.1f}]"
