"""Whether a map of a photo says what its model looked at: parts are blanked, most important first, and what falls?

python benchmarks/saliency.py RUN... [--pairs 64] [--data MANIFEST]

Deletion curves (Petsiuk et al. 2018, section 4.3, with similarity in the place of a class score). Of each run, queries
of the first test draw and their right answers, one pair per identity in a seeded order. A share of the query's cells is
blanked, in the order of each method's map, and the cosine is taken to the answer (match) or to the query's own clean
embedding (single). Printed: how much the cosine falls, mean over the shares 5, 10, 20, 30 and 50 %, when the most
important cells go, when the least important ones go, and how much more it falls by the method that is the default for
matches, with 95 % intervals over subjects. A map is worth something where the first is above that of random cells and
above that of `contrast`, which asks no model: how much blanking changes the pixels. Everything is done with both ways
of blanking, as occlusion itself blanks: what it says has to hold with the other one too. One thread.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from handreid.data.loading import decode_all
from handreid.errors import WeightsError
from handreid.explain.grad_cam import activations_and_gradients, grad_cam
from handreid.explain.occlusion import Fill, occlude, occlusion_map, tiling
from handreid.explain.rollout import rollout
from handreid.inference import load_embedder
from handreid.models.embedder import Embedder
from handreid.runs.dataset import RunDataset, load_dataset
from handreid.runs.folder import Run
from handreid.runs.side_information import side_information_of

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
FILLS: tuple[Fill, Fill] = ("blur", "mean")
DEFAULT = "occlusion 2 x 2, blur"
Maps = Float[np.ndarray, "photo rows cols"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Queries, and what their cosine is taken to; `subjects` of each, as numbers from 0."""

    embedder: Embedder
    photos: Tensor
    conditions: Tensor | None
    own: Tensor
    answers: Tensor
    subjects: Int[np.ndarray, " pair"]

    def cosines(self, photos: Tensor, towards: Tensor) -> Float[np.ndarray, " pair"]:
        return (self.embedder.embed(photos, self.conditions) * towards).sum(1).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for folder in given.runs:
        _report(folder.name, _read(Run(folder), given.pairs, given.data))


def _read(run: Run, count: int, data: Path | None) -> Pairs:
    embedder = load_embedder(run).cpu()
    material = load_dataset(run.recipe, data or Path(run.facts["manifest"]))
    paths, table = material.manifest.paths(), material.manifest.table
    queries, answers = _chosen(material, count)
    found = []
    for side in (queries, answers):
        photos = torch.from_numpy(np.array(decode_all([paths[row] for row in side], embedder.preprocessing)))
        known, _ = side_information_of(embedder, table[side])
        found.append((photos, None if known is None else torch.from_numpy(known)))
    own, right = (embedder.embed(*one) for one in found)
    subjects = np.unique([material.split.subjects[row] for row in queries], return_inverse=True)[1]
    return Pairs(embedder, *found[0], own.clone(), right.clone(), subjects)


def _chosen(material: RunDataset, count: int) -> tuple[list[int], list[int]]:
    split = material.split
    draw = split.test[0]
    right = {split.identities[row]: int(row) for row in draw.gallery}
    pairs: dict[str, int] = {}
    for row in np.random.default_rng(0).permutation(draw.query):
        if split.identities[row] in right:
            pairs.setdefault(split.identities[row], int(row))
    some = dict(list(pairs.items())[:count])
    return list(some.values()), [right[identity] for identity in some]


def _report(name: str, pairs: Pairs) -> None:
    grid = tiling(pairs.embedder)
    cosine = (pairs.own * pairs.answers).sum(1).mean()
    print(
        f"\n{name}: {len(pairs.own)} pairs of {pairs.subjects.max() + 1} subjects, {grid[0]} x {grid[1]} cells, ",
        end="",
    )
    print(f"mean cosine of a pair {cosine:.3f}")
    parts = {}
    for window in (1, 2, 3):
        for fill in FILLS:
            began = time.perf_counter()
            parts[f"occlusion {window} x {window}, {fill}"] = _worths(pairs, window, fill)
            taken = (time.perf_counter() - began) / len(pairs.own)
            print(f"  occlusion {window} x {window}, {fill}: {taken:.2f} s a photo")
    for what, towards in (("match", pairs.answers), ("single", pairs.own)):
        maps = _cheap_maps(pairs, towards, what)
        maps |= {name: np.einsum("nrcd,nd->nrc", one, towards.numpy()) for name, one in parts.items()}
        if what == "match":
            maps["occlusion of the photo, 2 x 2"] = np.einsum("nrcd,nd->nrc", parts[DEFAULT], pairs.own.numpy())
        for fill in FILLS:
            _compare(what, pairs, towards, maps, fill)


def _worths(pairs: Pairs, window: int, fill: Fill) -> Float[np.ndarray, "photo rows cols dim"]:
    known = pairs.conditions
    return np.stack(
        [
            occlusion_map(pairs.embedder, photo, None if known is None else known[n], window=window, fill=fill)[1]
            for n, photo in enumerate(pairs.photos)
        ]
    )


def _cheap_maps(pairs: Pairs, towards: Tensor, what: str) -> dict[str, Maps]:
    embedder, photos, conditions = pairs.embedder, pairs.photos, pairs.conditions
    grid = tiling(embedder)

    def product(to: Tensor) -> np.ndarray:
        places, gradient = activations_and_gradients(embedder, photos, conditions, to)
        return (places * gradient).sum(3).numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {
        "random": lambda: np.random.default_rng(1).random((len(photos), *grid)),
        "contrast": lambda: _contrast(photos, grid),
        "rollout": lambda: rollout(embedder, photos, conditions).numpy(),
        "Grad-CAM of the photo": lambda: grad_cam(embedder, photos, conditions).numpy(),
    }
    if what == "match":
        along = towards - (pairs.own * towards).sum(1, keepdim=True) * pairs.own
        ways["Grad-CAM to the answer"] = lambda: grad_cam(embedder, photos, conditions, towards=towards).numpy()
        ways["gradient x place"] = lambda: product(towards)
        ways["gradient x place, cosine"] = lambda: product(along)
    else:
        ways["gradient x place"] = lambda: product(towards)
    found = {}
    for name, make in ways.items():
        try:
            found[name] = _at(make(), grid)
        except WeightsError:  # rollout of a ResNet
            continue
    return found


def _at(maps: np.ndarray, grid: tuple[int, int]) -> Maps:
    if maps.shape[1:] == grid:
        return maps
    return F.interpolate(torch.from_numpy(maps)[:, None].float(), grid, mode="bilinear").numpy()[:, 0]


def _contrast(photos: Tensor, grid: tuple[int, int]) -> np.ndarray:
    every = np.ones((len(photos), *grid), bool)
    changed = (occlude(photos, every).float() - photos.float()).abs().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(changed, grid)[:, 0].numpy()


def _compare(what: str, pairs: Pairs, towards: Tensor, maps: dict[str, Maps], fill: Fill) -> None:
    print(f"  {what + ', blanked by ' + fill:30} {'most important':>24} {'least':>24} {'default falls more by':>24}")
    most = {name: _falls(pairs, towards, one, fill) for name, one in maps.items()}
    for name, one in maps.items():
        least = _falls(pairs, towards, -one, fill)
        said = (_said(value, pairs.subjects) for value in (most[name], least, most[DEFAULT] - most[name]))
        print(f"    {name:28} {' '.join(f'{text:>24}' for text in said)}", flush=True)


def _falls(pairs: Pairs, towards: Tensor, maps: Maps, fill: Fill) -> Float[np.ndarray, " pair"]:
    before = pairs.cosines(pairs.photos, towards)
    rank = np.argsort(np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable"), axis=1).reshape(maps.shape)
    hidden = (rank < round(share * maps[0].size) for share in SHARES)
    return np.mean([before - pairs.cosines(occlude(pairs.photos, one, fill=fill), towards) for one in hidden], axis=0)


def _said(values: Float[np.ndarray, " pair"], subjects: Int[np.ndarray, " pair"]) -> str:
    """Mean with the 2.5 and 97.5 % points of a Bayesian bootstrap over subjects."""
    weights = np.random.default_rng(0).exponential(size=(4000, subjects.max() + 1))[:, subjects]
    means = (weights * values).sum(1) / weights.sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
