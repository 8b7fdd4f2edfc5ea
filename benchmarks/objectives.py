"""What each term costs: forward and backward on a batch of 128 photos (32 x 4), 768 wide, 500 identities.

python benchmarks/objectives.py

Milliseconds on one thread, median of 20, and the ratio to cross-entropy's in the same run.
"""

import statistics
import time

import torch

from handreid.build import build_objectives
from handreid.models.heads import PlainHead
from handreid.recipe import parse_recipe
from handreid.types import Features, Outputs, Targets

TERMS = {
    "cross_entropy": "{kind: cross_entropy, features: [pooled]}",
    "arcface": "{kind: arcface, features: [pooled]}",
    "cosface": "{kind: cosface, features: [pooled]}",
    "triplet, batch_hard": "{kind: triplet, mining: batch_hard}",
    "triplet, batch_all": "{kind: triplet, mining: batch_all}",
    "triplet, hard_only": "{kind: triplet, mining: hard_only}",
    "center": "{kind: center, centres: running_mean}",
    "supcon": "{kind: supcon}",
    "circle, memory of 512": "{kind: metric_learning, loss: CircleLoss, distance: cosine, memory: 512}",
}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = torch.randn(128, 768)
    labels = torch.arange(32).repeat_interleave(4)
    base = 0.0
    for name, term in TERMS.items():
        milliseconds = cost(term, features, labels)
        base = base or milliseconds
        print(f"{name:24} {milliseconds:7.1f} ms  {milliseconds / base:6.1f} x cross-entropy")


def cost(term: str, features: torch.Tensor, labels: torch.Tensor) -> float:
    sampler = "sampler: {kind: pk, identities: 32}"
    recipe = parse_recipe(f"name: a\nstages: [{{kind: fine_tune, {sampler}, objectives: [{term}]}}]", "here")
    built = build_objectives(recipe.stages[0], PlainHead({"pooled": 768}, ("pooled",)), 500, 0)
    (objective,) = built.train().values()
    times = []
    for _ in range(22):
        x = features.clone().requires_grad_()
        outputs = Outputs(Features(x, x, x, x[:, None, None]), {"pooled": x}, {"pooled": x})
        began = time.perf_counter()
        objective(outputs, Targets(labels)).backward()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
