"""Writes both towers of a finished run into a small file, with the words of its captions; see `exported_towers`."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from handreid import __version__
from handreid.data.captions import wordings
from handreid.data.manifest import read
from handreid.data.rendered.people import people_set
from handreid.errors import HandreidError, RunError
from handreid.files import check_writable
from handreid.messages import shown
from handreid.models.backbone import ADDED
from handreid.models.clip import build_text_tower
from handreid.models.clip_weights import tags_of, weights_file
from handreid.models.embedder import Embedder
from handreid.models.exported_towers import TowerFacts, check_replaceable, save_exported
from handreid.models.known_words import tokens_in
from handreid.models.text import TextEncoder
from handreid.models.towers_file import Found, read_towers
from handreid.progress import NullProgress, Progress
from handreid.recipe import Pretrain
from handreid.runs.exported_exposure import people_seen
from handreid.runs.exposure import exposures_of, load_run_dataset
from handreid.runs.folder import Run, check_finished, check_noted, finished_model, open_run
from handreid.runs.pretrained_weights import weights_run
from handreid.workflows.package_texts import package_texts

_AGAIN = "copy it again, or train the run again"


@dataclass(frozen=True)
class Exported:
    """What was written: the file's size in bytes, and the numbers of tokens in it, and of those learned from."""

    size: int
    kept: int
    seen: int
    notes: tuple[str, ...]


def export_towers(run: Run, out: Path, *, data: Path | None = None, progress: Progress | None = None) -> Exported:
    """Writes `out`; an existing file is replaced if it holds exported towers too.

    Of the vocabulary it holds the tokens of the captions that the run and those before it learned from, and of the
    sentences of this package. `data` is the run's manifest, if that is not where it was. Raises RunError for a run
    without both towers, or whose manifest is missing; OutputError.
    """
    check_writable(out, (".safetensors",))
    check_replaceable(out)
    towers, config, embedder = _towers(run)
    text = build_text_tower(config)
    _check_vocabulary(text, config)
    manifests = [data] if data else []
    seen = _seen(run, text, manifests)
    kept = tokens_in(text, package_texts())
    kept |= torch.zeros_like(kept) if seen is None else seen
    ids = kept.nonzero()[:, 0]
    known = torch.ones(len(ids), dtype=torch.bool) if seen is None else seen[ids]
    exposures, notes = exposures_of(run, progress=progress)
    sets = dict(_people_sets(run, manifests))
    recipe = run.recipe
    facts = TowerFacts(
        recipe=recipe.name,
        seed=recipe.seed,
        epochs=tuple(stage.epochs for stage in recipe.stages),
        handreid=__version__,
        manifest_hash=run.facts["manifest_hash"],
        photos_hash=run.facts["photos_hash"],
        config=config,
        preprocessing=embedder.preprocessing,
        seen=people_seen(exposures, sets),
    )
    if not bool(known.any()):
        notes = [*notes, "no text was read in training: sentences mean nothing to this text tower"]
    for note in notes:
        (progress or NullProgress()).say(f"note: {note}")
    save_exported(out, towers.state, ids, known, facts)
    return Exported(out.stat().st_size, len(ids), int(known.sum()), tuple(notes))


def _towers(run: Run) -> tuple[Found, dict[str, object], Embedder]:
    """Both towers, their config, and the run's model. Raises RunError."""
    check_finished(run)
    noted = run.facts["files"].get(run.towers.name)
    if noted is None:
        raise RunError(
            f"{run.folder} has no {run.towers.name}: only runs with a stage `pretrain` have both towers to export"
        )
    check_noted(run.towers, noted=noted, advice=_AGAIN)
    towers = read_towers(run.towers)
    if towers is None:
        raise RunError(f"{run.towers} does not hold both towers; {_AGAIN}")
    embedder = Embedder.load(finished_model(run))
    config = {name: value for name, value in embedder.backbone.config.items() if name not in ADDED}
    return towers, config, embedder


def _check_vocabulary(text: TextEncoder, config: dict[str, object]) -> None:
    """Raises RunError for a text tower whose vocabulary cannot be cut."""
    reads = config["text_cfg"]
    own = isinstance(reads, dict) and not any(reads.get(key) for key in ("hf_tokenizer_name", "tokenizer_kwargs"))
    try:
        text.check_promptable()
    except HandreidError:
        own = False
    if not own:
        raise RunError("only towers with CLIP's own text tower and tokenizer can be exported, but this run has others")


def _seen(run: Run, text: TextEncoder, manifests: Sequence[Path]) -> Bool[Tensor, " vocabulary"] | None:
    """The tokens that the run's text tower learned from; None for all, if it comes from elsewhere."""
    found = read_towers(run.towers) if run.towers.is_file() else None
    if found is not None and found.seen is not None:
        return found.seen
    before = _parent(run)
    earlier = _seen_at_first(run, text) if before is None else _seen(before, text, manifests)
    return None if earlier is None else earlier | _captions(run, text, manifests)


def _seen_at_first(run: Run, text: TextEncoder) -> Bool[Tensor, " vocabulary"] | None:
    """The tokens that the weights have learned from which the run's recipe names, a file or a tag; None for all."""
    start = run.recipe.model.backbone
    if start.weights == "none" or start.towers == "image":
        return torch.zeros(len(text.vocabulary), dtype=torch.bool)
    tagged = start.config is None
    if weights_file(start.name, start.weights, tagged=tagged) or (tagged and start.weights in tags_of(start.name)):
        return None
    raise RunError(
        f"{run.folder} started from {shown(start.weights, 200)}, which is not there any more: it is not known which "
        "words its text tower had learned; restore it"
    )


def _captions(run: Run, text: TextEncoder, manifests: Sequence[Path]) -> Bool[Tensor, " vocabulary"]:
    """Tokens of the captions that the run's own stages learned from."""
    stages = [stage for stage in run.recipe.stages if isinstance(stage, Pretrain)]
    if not any(stage.image_text and stage.learns != "image" for stage in stages):
        return torch.zeros(len(text.vocabulary), dtype=torch.bool)
    material = load_run_dataset(run, manifests)
    texts = {text for parts in wordings(material.manifest, material.split.train.tolist()) for text in parts}
    return tokens_in(text, sorted(texts))


def _parent(run: Run) -> Run | None:
    """The run that this one began with; None for other weights."""
    folder = run.facts.get("init_from")
    return weights_run(run.recipe) if folder is None else open_run(Path(folder))


def _people_sets(run: Run | None, manifests: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Hash of the manifest and set of people, of the run and of those before it, as far as manifests are there."""
    paths = list(manifests)
    while run is not None:
        paths.append(Path(run.facts["manifest"]))
        run = _parent(run)
    for path in paths:
        with contextlib.suppress(HandreidError):
            manifest = read(path)
            yield manifest.hash, people_set(manifest)
