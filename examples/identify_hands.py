"""Who is on these photos? Hands of people who do not exist are drawn, the small model in the package is trained on some
of the people, and the others are found among each other. Run it as a script, or cell by cell: minutes on two cores,
without photos, GPU or network.
"""

# %% What is made, and where
import sys
from pathlib import Path

import numpy as np

import handreid
from handreid.data.rendered import render
from handreid.data.sources import csv
from handreid.recipe import Recipe

place = Path(sys.argv[1] if len(sys.argv) > 1 else "identify-hands")
people, shots, epochs = (24, 8, 3) if len(sys.argv) < 3 else (10, 4, 1)  # a second argument: as little as possible

# %% Photos, and a table of who is on them. With photos of your own: `handreid data prepare folders`
table = render(place / "photos", identities=people, photos=shots, size=96, workers=1)
manifest = csv(table)
manifest.write(place / "photos.parquet")

# %% A model. Any built-in recipe will do, with its keys changed
recipe: Recipe = handreid.load_recipe("small-cross-entropy", [f"stages.0.epochs={epochs}", "data.label=subject"])
run = handreid.train(recipe, place / "photos.parquet", place / "run")
handreid.evaluate(run)
print(f"tested on unseen subjects: {run.evaluation}")

# %% Photos as points
embeddings = handreid.embed(run, manifest)
subjects = np.array(manifest.table["subject"].to_list())
print(f"{len(embeddings)} photos, {embeddings.shape[1]} numbers each")

# %% Every first photo of a person is looked for among all the others
first = np.array([int(np.flatnonzero(subjects == subject)[0]) for subject in np.unique(subjects)])
others = np.setdiff1d(np.arange(len(subjects)), first)
found = handreid.rank(embeddings[first], embeddings[others], k=3, labels=subjects[others], by="label")
assert found.labels is not None
for subject, names, scores in zip(subjects[first][:5], found.labels, found.scores, strict=False):
    print(
        subject, "is most like", ", ".join(f"{name} ({score:.2f})" for name, score in zip(names, scores, strict=True))
    )

# %% How good is that? Most of these people were trained on: a figure for show, the evaluation above is one for a paper
scored = handreid.metrics(
    embeddings[first], embeddings[others], subjects[first], subjects[others], subjects=subjects[first]
)
assert scored.intervals is not None
interval = scored.intervals["rank1"]
print(f"rank-1 {scored['rank1']:.1%} ({interval.low:.1%} to {interval.high:.1%}), mAP {scored['map']:.1%}")
