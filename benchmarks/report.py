"""How long a report over 20 runs and 2,000 test photos takes, how large it is, and how much memory it wants.

    python benchmarks/report.py [--data MANIFEST] [--runs 20] [--out FOLDER]

Without --data, hands are drawn first (minutes). One run is trained for an epoch; the others are copies of it in which
some ranks and rates are changed and 60 epochs of curves are made up: what a report costs does not depend on what its
numbers are. Measured is `handreid report FOLDER` as a process of its own, on embeddings that the evaluation kept, and
once more without them, as a run of an older version has it.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from handreid.files import file_hash, read_json, write_json, write_text
from handreid.runs.epoch_metrics import append_metrics, read_metrics
from handreid.runs.folder import Run

HANDREID = Path(sys.executable).with_name("handreid")
PEOPLE, PHOTOS, TESTED = 250, 16, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp())
    data = chosen.data or draw(out / "hands")
    folder = out / "runs"
    if not folder.exists():
        train(data, folder / "run-00")
        for number in range(1, chosen.runs):
            copy(folder / "run-00", folder / f"run-{number:02d}", number)
    for told in ("embeddings kept", "embeddings made anew"):
        measure(folder, out / "report.html", told)
        (folder / "run-00" / "evaluation-embeddings.safetensors").unlink(missing_ok=True)


def draw(folder: Path) -> Path:
    call("data", "render", "--identities", PEOPLE, "--photos", PHOTOS, "--out", folder)
    return folder / "manifest.parquet"


def train(data: Path, out: Path) -> None:
    settings = ["stages.0.epochs=1", f"data.test_share={TESTED}", "name=run-00"]
    call(
        "train", "tiny-cross-entropy", "--data", data, "--out", out, *[part for s in settings for part in ("--set", s)]
    )
    call("evaluate", out)


def copy(one: Path, other: Path, seed: int) -> None:
    chance = random.Random(seed)
    shutil.copytree(one, other)
    recipe = (other / "recipe.yaml").read_text().replace("name: run-00", f"name: {other.name}")
    write_text(other / "recipe.yaml", recipe.replace("label_smoothing: 0.1", f"label_smoothing: {0.01 * seed}"))
    evaluation = read_json(other / "evaluation.json")
    for draw_ in evaluation["draws"]:
        draw_["ranks"] = [[max(1, r + chance.choice((-1, 0, 0, 1))) for r in ranks] for ranks in draw_["ranks"]]
    write_json(other / "evaluation.json", evaluation)
    line = read_metrics(Run(one))[0]
    (other / "metrics.jsonl").unlink()
    for epoch in range(1, 61):
        append_metrics(Run(other), {**line, "epoch": epoch, "loss": line["loss"] / epoch})
    facts = read_json(other / "run.json")
    hashes = {name: file_hash(other / name) for name in facts["files"]}
    write_json(other / "run.json", facts | {"files": hashes})


def measure(folder: Path, page: Path, told: str) -> None:
    begin = time.perf_counter()
    call("report", folder, "--out", page, "--show", "run-00")
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    evaluation = json.loads((folder / "run-00" / "evaluation.json").read_text())
    tested = evaluation.get("separation", {}).get("counts", {}).get("photos", len(evaluation["photos"]))
    runs = sum(1 for _ in folder.iterdir())
    size = page.stat().st_size / 1e6
    print(
        f"{runs} runs, {tested:,} test photos, {told}: {seconds:.1f} s, {size:.1f} MB, peak {peak:.1f} GiB of any step"
    )


def call(*arguments: object) -> None:
    subprocess.run([HANDREID, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
