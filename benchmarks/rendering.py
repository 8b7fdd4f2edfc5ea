"""How fast hands are drawn, and how far untrained features get in telling them apart.

python benchmarks/rendering.py              images a second: one process, and one per core
python benchmarks/rendering.py --hardness   rank-1 of pixels and of networks with random weights
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from handreid.data.rendered import render

if TYPE_CHECKING:  # the processes that draw import this file too: it stays light
    import torch

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hardness", action="store_true")
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--size", type=int, default=128)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.hardness:
            hardness(Path(folder), chosen.identities, chosen.size)
        else:
            rates(Path(folder), chosen.identities, chosen.size)


def rates(folder: Path, identities: int, size: int) -> None:
    cores = os.cpu_count() or 1
    print(f"{size} px, load {os.getloadavg()[0]:.1f} on {cores} cores before the run")
    for workers, people in ((1, max(identities // 4, 10)), (cores, identities)):
        start = time.perf_counter()
        render(folder / str(workers), identities=people, photos=8, seed=SEED, size=size, workers=workers)
        rate = people * 8 / (time.perf_counter() - start)
        print(f"{workers} process{'es' if workers > 1 else ''}: {rate:.0f} images/s, start included")


def hardness(folder: Path, identities: int, size: int) -> None:
    import polars as pl
    from torchvision.models import VisionTransformer, resnet18

    table = pl.read_csv(render(folder / "hands", identities=identities, photos=8, seed=SEED, size=size))
    photos = np.stack([np.asarray(Image.open(folder / "hands" / path)) for path in table["path"]])
    labels = table.select(pl.concat_str("subject", "side", "aspect").rank("dense")).to_series().to_numpy()
    vit = VisionTransformer(112, patch_size=16, num_layers=6, num_heads=6, hidden_dim=192, mlp_dim=768)
    features = {
        "pixels, 32 x 32": pixels(photos, 32),
        f"pixels, {size} x {size}": pixels(photos, size),
        "grey pixels, 32 x 32": pixels(photos, 32, grey=True),
        "mean colour": photos.reshape(len(photos), -1, 3).mean(axis=1),
        "ResNet-18, random weights": untrained(resnet18(weights=None), "fc", photos),
        "small ViT, random weights": untrained(vit, "heads", photos),
    }
    aspects = len(set(labels.tolist()))
    print(f"{identities} identities, {aspects} gallery photos (one of each hand and aspect), ten draws")
    print(f"chance: {100 / aspects:.2f} % rank-1, {100 / identities:.2f} % right subject")
    for name, values in features.items():
        found = rank_1(values.astype(np.float32), labels)
        print(f"{name}: {found[0]:.1f} % rank-1, {found[1]:.1f} % right subject")


def pixels(photos: np.ndarray, side: int, *, grey: bool = False) -> np.ndarray:
    images = (Image.fromarray(photo).convert("L" if grey else "RGB") for photo in photos)
    return np.stack([np.asarray(i.resize((side, side), Image.Resampling.BOX)).ravel() for i in images])


def untrained(model: "torch.nn.Module", last: str, photos: np.ndarray) -> np.ndarray:
    """Features at 112 px before the layer `last`; batch norm takes each batch's own statistics."""
    import torch

    torch.manual_seed(SEED)
    for weight in (p for p in model.parameters() if p.dim() > 1):
        torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
    setattr(model, last, torch.nn.Identity())
    found = []
    with torch.inference_mode():
        for batch in torch.from_numpy(photos).permute(0, 3, 1, 2).split(100):
            images = torch.nn.functional.interpolate(batch.float() / 127.5 - 1, 112, mode="area")
            found.append(model.train()(images))
    features = torch.cat(found)
    return torch.nn.functional.normalize(features - features.mean(dim=0)).numpy()


def rank_1(features: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Percent of queries whose nearest gallery photo is the same hand aspect, or only the same subject."""
    rng = np.random.default_rng(SEED)
    subjects = np.arange(len(labels)) // 8
    hits, people = [], []
    for _ in range(10):
        order = rng.permutation(len(labels))
        _, first = np.unique(labels[order], return_index=True)
        gallery = order[first]
        query = np.setdiff1d(order, gallery)
        distance = -2 * features[query] @ features[gallery].T + (features[gallery] ** 2).sum(axis=1)
        nearest = gallery[distance.argmin(axis=1)]
        hits.append(np.mean(labels[nearest] == labels[query]))
        people.append(np.mean(subjects[nearest] == subjects[query]))
    return 100 * float(np.mean(hits)), 100 * float(np.mean(people))


if __name__ == "__main__":
    main()
