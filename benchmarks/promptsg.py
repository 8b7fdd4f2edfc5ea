"""What a sentence for every photo costs: a training step of the head alone, forward and backward, by kind of head.

python benchmarks/promptsg.py

16 photos (8 x 2) of ViT-B/16's sizes (512 joint, 14 x 14 patches of 768), the text tower of ViT-B/16 with random
weights. Milliseconds on one thread, fastest of 3 by turns: a step of the head, the image tower left out; and the head
in an embedding of the same photos, both ways.
"""

import time
from typing import Any

import torch

from handreid.models.clip import build_text_tower, clip_config
from handreid.models.promptsg_head import JointSpace, SemanticHead, build_semantic_head
from handreid.recipe import Model
from handreid.types import Features

PHOTOS = 16
HEADS: dict[str, tuple[dict[str, Any], int]] = {
    "promptsg": ({"kind": "promptsg"}, 0),
    "promptsg_graph, edges: none": ({"kind": "promptsg_graph", "edges": "none"}, 0),
    **{
        f"promptsg_graph, {edges}, {identities} identities": ({"kind": "promptsg_graph", "edges": edges}, identities)
        for edges, identities in (("identity", 150), ("attributes", 150), ("attributes", 5000))
    },
}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    space = JointSpace(512, build_text_tower(clip_config("ViT-B-16")))
    heads = {name: head_of(config, identities, space) for name, (config, identities) in HEADS.items()}
    joint, pooled, patches = torch.randn(PHOTOS, 512), torch.randn(PHOTOS, 768), torch.randn(PHOTOS, 14, 14, 768)
    labels = torch.arange(8).repeat_interleave(2)
    best: dict[tuple[str, str], float] = {}
    for _ in range(3):
        for name, head in heads.items():
            features = Features(joint.clone().requires_grad_(), pooled, pooled, patches)
            for what, taken in (
                ("step", step(head, features, labels)),
                *((mode, embedding(head, features, mode)) for mode in ("composed", "fixed")),
            ):
                best[name, what] = min(best.get((name, what), float("inf")), taken)
    for name in heads:
        parts = "  ".join(f"{what} {best[name, what]:7.1f}" for what in ("step", "composed", "fixed"))
        print(f"{name:45} {parts}   ms for {PHOTOS} photos")


def head_of(config: dict[str, Any], identities: int, space: JointSpace) -> SemanticHead:
    complete = Model.model_validate({"head": config}).head.model_dump()
    head = build_semantic_head(complete, {"joint": 512, "pooled": 768}, ("joint", "pooled"), (14, 14, 768), space)
    if head.graph is not None:
        head.graph.set_identities(identities)
        if head.graph.edges == "attributes":
            attributes = [("view", str(n)) for n in range(20)]
            head.graph.describe(attributes, torch.randn(20, 512), torch.rand(identities, 20).softmax(1))
        head.graph.prototypes.normal_()
        head.graph.counts += 1
    return head


def step(head: SemanticHead, features: Features, labels: torch.Tensor) -> float:
    head.train()
    began = time.perf_counter()
    outputs = head.outputs(features, labels)
    (outputs.after["semantic"] ** 2).mean().backward()
    return 1000 * (time.perf_counter() - began)


@torch.inference_mode()
def embedding(head: SemanticHead, features: Features, mode: Any) -> float:
    head.eval().inference = mode
    began = time.perf_counter()
    head.outputs(features)
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    main()
