"""What do bf16 autocast, the channels-last memory format and torch.compile do to a training step on this CPU?

Prints photos per second of CPU time for forward, backward and an AdamW step of a tower alone, on one thread, and the
median ratio to the first variant of the same round. Variants take turns, and waiting for the CPU does not count, so
that other work on the machine changes little.

    python benchmarks/precision.py [--towers handreid-tiny small-resnet vit-ti] [--photos 32] [--rounds 7]
        [--variants fp32 "channels last" bf16]

`channels last` converts the photos only, as `handreid.models.tower` does for a ResNet; `and parameters` converts those
too. A ViT has one convolution. Compiled variants need a C++ compiler.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import torch

from handreid.models.clip import build_image_tower, clip_config
from handreid.runs.environment import cpu_computes_bf16

TEXT = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
SMALL_RESNET = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 24, "patch_size": None}
VIT_TI = {"image_size": 224, "patch_size": 16, "width": 192, "layers": 12, "head_width": 64}
TOWERS: dict[str, dict[str, Any]] = {
    "handreid-tiny": clip_config("handreid-tiny"),
    "small-resnet": {"embed_dim": 128, "vision_cfg": SMALL_RESNET, "text_cfg": TEXT},
    "vit-ti": {"embed_dim": 192, "vision_cfg": VIT_TI, "text_cfg": TEXT},
}
VARIANTS = {
    "fp32": (),
    "channels last": ("channels_last",),
    "channels last and parameters": ("channels_last", "parameters"),
    "compiled": ("compile",),
    "channels last, compiled": ("channels_last", "compile"),
    "bf16": ("bf16",),
    "bf16, channels last": ("bf16", "channels_last"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--towers", nargs="+", choices=TOWERS, default=list(TOWERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photos", type=int, default=32, help="in a batch")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    native = "computes bf16 itself" if cpu_computes_bf16() else "has no bf16 instructions that torch uses"
    print(f"{torch.backends.cpu.get_cpu_capability()}; this processor {native}")
    for name in arguments.towers:
        compare(name, arguments.variants, arguments.photos, arguments.rounds)


def compare(tower: str, variants: list[str], photos: int, rounds: int) -> None:
    config = TOWERS[tower]
    steps = {name: build_step(config, photos, VARIANTS[name]) for name in variants}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if number:  # the first compiles, and allocates
                taken[name].append(time.process_time() - began)
    size = config["vision_cfg"]["image_size"]
    print(f"{tower}, {size} px, batches of {photos}, {rounds} rounds")
    for name, seconds in taken.items():
        ratios = sorted(base / own for base, own in zip(taken[variants[0]], seconds, strict=True))
        rate = photos / statistics.median(seconds)
        spread = f"from {ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"  {name:30} {rate:7.2f} photos/s   x {statistics.median(ratios):.2f} ({spread})", flush=True)


def build_step(config: dict[str, Any], photos: int, options: tuple[str, ...]) -> Callable[[], None]:
    torch.manual_seed(0)
    tower = build_image_tower(config).train()
    size = config["vision_cfg"]["image_size"]
    batch = torch.randn(photos, 3, size, size)
    if "channels_last" in options:
        batch = batch.contiguous(memory_format=torch.channels_last)
    if "parameters" in options:
        tower = tower.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-4)
    called = torch.compile(tower) if "compile" in options else tower
    return partial(one_step, called, batch, optimizer, bf16="bf16" in options)


def one_step(tower: Any, batch: torch.Tensor, optimizer: torch.optim.Optimizer, *, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = tower(batch).float().square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    main()
