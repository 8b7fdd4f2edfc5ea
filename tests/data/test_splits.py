"""Splits and draws: the papers' counts, and the ways in which a split can be dishonest (traps 7, 9 and 10)."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handreid.data import sources
from handreid.data.describe import describe
from handreid.data.manifest import Manifest
from handreid.data.protocols import HANDS11K_LAST_TRAIN_ID
from handreid.data.rows import VALUES as CORE_VALUES
from handreid.data.splits import PROTOCOLS, Split, make_split
from handreid.data.validation import VALIDATIONS
from handreid.errors import ManifestError, ProtocolError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_photos = pytest.mark.skipif(not SHARED.is_dir(), reason="the real photos are not beside the repository")
VIEWS = tuple(HANDS11K_LAST_TRAIN_ID)
VALUES = CORE_VALUES["aspect"]
LEAKING = ("0001039", "0001042", "0001043", "0001046", "0001050", "0001051")

# view: train ids, train images, test ids, test images, test ids with two and more, queries per draw
FULL = {
    "dorsal-right": (72, 962, 71, 1042, 71, 971),
    "dorsal-left": (73, 808, 73, 1061, 73, 988),
    "palmar-right": (72, 977, 71, 988, 71, 917),
    "palmar-left": (76, 1004, 75, 1023, 75, 948),
}
SUBSET = {
    "dorsal-right": (57, 185, 50, 127, 32, 77),
    "dorsal-left": (53, 138, 62, 187, 42, 125),
    "palmar-right": (61, 150, 51, 126, 35, 75),
    "palmar-left": (62, 180, 63, 210, 49, 147),
}


@cache
def like_hands11k(photos: int = 4) -> Manifest:
    """Ids around the cut-offs, every view, `photos` clean ones of each and one with a ring."""
    rows = [
        {"path": f"Hands/{number}-{view}-{photo}.jpg", "subject": f"{number:07}", "accessories": int(photo == photos)}
        | dict(zip(("aspect", "side"), view.split("-"), strict=True))
        for number in range(1030, 1060)
        for view in VIEWS
        for photo in range(photos + 1)
    ]
    return Manifest(pl.DataFrame(rows), Path("/data"), "hands11k")


@cache
def own_data() -> Manifest:
    rows = [{"path": f"{who}/{photo}.jpg", "subject": who} for who in "abcdefghijklmnopqrst" for photo in range(5)]
    return Manifest(pl.DataFrame([*rows, {"path": "z/0.jpg", "subject": "z"}]), Path("/data"))


def a_tree(root: Path) -> Path:
    """A prepared tree in which a listing of query1 and one of gallery1 would number the identities differently."""
    for folder, identities in {
        "train": ("05", "06", "07", "08", "09"),
        "query0": ("20", "30"),
        "gallery0": ("20", "30"),
        "query1": ("20", "30"),
        "gallery1_all": ("10", "20", "30", "40"),
    }.items():
        for identity in identities:
            for photo in range(3):
                (root / folder / identity).mkdir(parents=True, exist_ok=True)
                (root / folder / identity / f"{photo}.jpg").touch()
    return root


def labels(split: Split, rows: np.ndarray) -> set[str]:
    return {split.identities[row] for row in rows}


def people(split: Split, rows: np.ndarray) -> set[str]:
    return {split.subjects[row] for row in rows}


def every_split() -> Iterator[Split]:
    for validation in VALIDATIONS:
        for view in (None, *VIEWS):
            yield make_split(like_hands11k(), protocol="hands11k", view=view, validation=validation)
        yield make_split(like_hands11k(), protocol="disjoint", label="hand", validation=validation)
        yield make_split(own_data(), protocol="disjoint", label="subject", validation=validation)


@cache
def real(folder: str) -> Manifest:
    if folder == "metadata":
        return sources.hands11k_metadata(SHARED / "hands11k-180" / "HandInfo.csv")
    return sources.hands11k(SHARED / folder, allow_missing=True)


@needs_photos
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("folder", "table"), [("metadata", FULL), ("hands11k-180", SUBSET)])
def test_the_published_counts(folder: str, table: dict[str, tuple[int, ...]], view: str) -> None:
    split = make_split(real(folder), protocol="hands11k", view=view, validation="closed-set")
    train = np.concatenate([split.train, split.validation_rows])
    in_view = np.array(real(folder).views) == view
    assert len(split.test) == 10
    for draw in split.test:
        mine = draw.gallery[in_view[draw.gallery]]
        found = (len(labels(split, train)), len(train), len(mine), len(mine) + len(draw.query))
        assert (*found, len(labels(split, draw.query)), len(draw.query)) == table[view]
        assert len(draw.gallery) == len(labels(split, draw.gallery)) == sum(row[2] for row in table.values())


@needs_photos
def test_the_full_gallery_has_290_photos_and_143_to_151_people_show_each_view() -> None:
    split = make_split(real("metadata"), protocol="hands11k", view="dorsal-right")
    assert {len(draw.gallery) for draw in split.test} == {290}
    counts = [FULL[view][0] + FULL[view][2] for view in VIEWS]
    assert counts == [143, 146, 143, 151]


@needs_photos
def test_pooling_the_real_views_drops_the_six() -> None:
    split = make_split(real("metadata"), protocol="hands11k")
    assert any(note.endswith(", ".join(LEAKING)) and note.startswith("6 subjects") for note in split.notes)
    assert not people(split, split.train) & set(LEAKING)
    assert {len(draw.gallery) for draw in split.test} == {290}


@needs_photos
def test_describe_gives_the_published_table() -> None:
    told = describe(real("metadata"), draws=1)
    for view, row in FULL.items():
        counts = told["protocols"]["hands11k"][view]
        names = ("train_identities", "train_photos", "test_identities", "test_photos")
        assert tuple(counts[name] for name in (*names, "test_identities_with_queries", "queries")) == row
        assert counts["gallery"] == 290
    assert told["views"]["dorsal-right"] == {"photos": 2892, "subjects": 189}
    assert told["metadata"]["skin_color"]["counts"] == {"medium": 6495, "fair": 3493, "dark": 758, "very fair": 330}


@pytest.mark.parametrize("view", VIEWS)
def test_cut_offs_and_accessories(view: str) -> None:
    manifest = like_hands11k()
    split = make_split(manifest, protocol="hands11k", view=view, validation="closed-set")
    last = HANDS11K_LAST_TRAIN_ID[view]
    train = np.concatenate([split.train, split.validation_rows])
    assert {int(who) for who in people(split, train)} == set(range(1030, last + 1))
    assert {manifest.views[row] for row in train} == {view}
    for draw in split.test:
        assert {int(who) for who in people(split, draw.query)} == set(range(last + 1, 1060))
        used = np.concatenate([train, draw.query, draw.gallery])
        assert set(manifest.table["accessories"][used.tolist()]) == {0}


@pytest.mark.parametrize("view", [None, *VIEWS])
def test_gallery_is_merged_from_all_views(view: str | None) -> None:
    """Trap 9: searched are the test identities of the four views (290 of 11k Hands), not those of one (71)."""
    split = make_split(like_hands11k(), protocol="hands11k", view=view)
    expected = {
        f"{number:07}/{name}" for name, last in HANDS11K_LAST_TRAIN_ID.items() for number in range(last + 1, 1060)
    }
    for draw in split.test:
        assert [*sorted(labels(split, draw.gallery))] == sorted(expected)
        assert len(draw.gallery) == len(expected)


def test_draws_share_no_photo_and_every_query_has_one_right_answer() -> None:
    for split in every_split():
        for draw in (*split.test, *split.validation[: 0 if split.validation[0].gallery is split.train else None]):
            assert not set(draw.gallery) & set(draw.query)
            gallery = [split.identities[row] for row in draw.gallery]
            assert all(gallery.count(label) == 1 for label in labels(split, draw.query))


def test_no_test_identity_trains_or_chooses_the_model() -> None:
    """Trap 7, by label and by person: nobody who is searched for is seen before."""
    for split in every_split():
        seen = {*split.train, *split.validation_rows}
        for draw in split.validation:
            seen |= {*draw.gallery, *draw.query}
        for draw in split.test:
            tested = labels(split, draw.query) | labels(split, draw.gallery)
            assert not labels(split, np.array([*seen])) & tested
            if split.view is None:
                assert not people(split, np.array([*seen])) & people(split, draw.query)


def test_held_back_people_leave_training_and_the_closed_set_does_not() -> None:
    for view in (None, "palmar-left"):
        split = make_split(like_hands11k(), protocol="hands11k", view=view, validation="held-out")
        assert not people(split, split.train) & people(split, split.validation_rows)
        assert not people(split, split.validation_rows) & people(split, split.test[0].gallery)
        closed = make_split(like_hands11k(), protocol="hands11k", view=view, validation="closed-set")
        (draw,) = closed.validation
        assert labels(closed, draw.query) == labels(closed, closed.train)
        assert len(draw.query) == len(labels(closed, closed.train))
        assert not set(closed.train) & set(draw.query)


def test_pooled_views_drop_whoever_is_on_both_sides() -> None:
    split = make_split(like_hands11k(), protocol="hands11k", validation="closed-set")
    leaking = {f"{number:07}" for number in range(1038, 1052)}  # above the lowest cut-off, up to the highest
    trained = people(split, split.train)
    assert trained == {f"{number:07}" for number in range(1030, 1038)}
    assert leaking <= people(split, split.test[0].query)
    note = next(note for note in split.notes if "train in one view" in note)
    assert note.startswith("14 subjects")
    assert all(name in note for name in leaking)


def test_a_single_view_tells_whom_the_papers_leave_as_distractors() -> None:
    split = make_split(like_hands11k(), protocol="hands11k", view="dorsal-right")
    assert (
        "13 subjects train in dorsal-right and are distractors in the gallery with another view, as in the papers"
        in (split.notes)
    )


GOLDEN = {
    "hands11k": (
        "1f4b671d77d67ca40348f9203984d351dbbc34ca74a7a896a21adc77e6622f32",
        "15b8c8e31d1152518c57af423f239bfb6bbc01667d9e1e87f0c08cd4de1ce4a1",
    ),
    "disjoint": (
        "0382273ff564513c4d521f74b193922b7de419b49e28f7d786e9b160fd504111",
        "c09939d46993ec30d6d5d48beb3a81fea6ffb62e74021a0f17944b920b0d940b",
    ),
}


def golden(protocol: str) -> Split:
    if protocol == "hands11k":
        return make_split(like_hands11k(), protocol="hands11k", view="dorsal-left", seed=3)
    return make_split(own_data(), protocol="disjoint", label="subject", validation="closed-set", seed=3)


@pytest.mark.parametrize("protocol", GOLDEN)
def test_hashes_are_golden(protocol: str) -> None:
    """Fixed for ever, on every machine and Python: results carry them."""
    split = golden(protocol)
    assert (split.hash, split.draws_hash) == GOLDEN[protocol]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_row_order_decides_nothing(random: object) -> None:
    order = list(range(len(own_data())))
    random.shuffle(order)  # type: ignore[attr-defined]
    split = golden("disjoint")
    shuffled = make_split(
        Manifest(own_data().table[order], Path("/moved")),
        protocol="disjoint",
        label="subject",
        validation="closed-set",
        seed=3,
    )
    assert (shuffled.hash, shuffled.draws_hash) == (split.hash, split.draws_hash)
    assert [shuffled.paths[row] for row in shuffled.train] == [split.paths[row] for row in split.train]
    for one, other in zip(shuffled.test, split.test, strict=True):
        assert [shuffled.paths[row] for row in one.query] == [split.paths[row] for row in other.query]


def test_seed_and_draw_change_the_choice() -> None:
    splits = [
        make_split(own_data(), protocol="disjoint", label="subject", validation_share=0.3, seed=seed)
        for seed in range(3)
    ]
    assert len({split.hash for split in splits}) == 3
    assert len({split.draws_hash for split in splits}) == 3
    assert len({tuple(draw.gallery) for draw in splits[0].test}) == 10


def test_a_photo_more_disturbs_its_own_identity_only() -> None:
    manifest = own_data()
    before = golden("disjoint")
    tested = sorted(people(before, before.test[0].query))[0]
    extra = pl.DataFrame({"path": [f"{tested}/new.jpg"], "subject": [tested]})
    more = Manifest(pl.concat([manifest.table, extra], how="diagonal"), Path("/data"))
    after = make_split(more, protocol="disjoint", label="subject", validation="closed-set", seed=3)
    assert after.hash == before.hash
    others = [{before.paths[row] for row in draw.gallery if before.subjects[row] != tested} for draw in before.test]
    assert others == [
        {after.paths[row] for row in draw.gallery if after.subjects[row] != tested} for draw in after.test
    ]


def test_draws_are_about_uniform() -> None:
    split = make_split(own_data(), protocol="disjoint", label="subject", draws=400)
    who = split.subjects[split.test[0].query[0]]
    chosen = [next(row for row in draw.gallery if split.subjects[row] == who) for draw in split.test]
    counts = np.unique(chosen, return_counts=True)[1]
    assert len(counts) == 5
    assert counts.min() > 50  # 80 expected, standard deviation 8


def test_single_photos_stay_as_distractors() -> None:
    for seed in range(20):
        split = make_split(own_data(), protocol="disjoint", label="subject", seed=seed, test_share=0.5)
        if "z" in people(split, split.test[0].gallery):
            assert all("z" not in people(split, draw.query) for draw in split.test)
            return
    pytest.fail("z was never tested")


def test_disjoint_counts_and_shares() -> None:
    split = make_split(own_data(), protocol="disjoint", label="subject", test_share=0.3, validation_share=0.4)
    assert len(people(split, split.test[0].gallery)) == round(0.3 * 21)
    assert len(people(split, split.validation_rows)) == round(0.4 * 15)
    assert len(people(split, split.train)) == 9
    assert split.train_identities() == sorted(people(split, split.train))


def test_hd_protocol(tmp_path: Path) -> None:
    names = [f"1-501/{number}_{photo}.jpg" for number in range(437, 457) for photo in range(3)]
    names += [f"502-712/{number}_{photo}.jpg" for number in (440, 450, 502) for photo in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    split = make_split(sources.hd(tmp_path), protocol="hd", label="subject", validation="closed-set")
    assert people(split, split.train) == {str(number) for number in range(437, 448)}
    for draw in split.test:
        assert people(split, draw.query) == {str(number) for number in range(448, 457)}
        assert len(draw.gallery) == 9 + 6
        assert {"1440", "1450", "1502"} <= people(split, draw.gallery)
    assert split.notes[0] == "11 training ids, 9 test ids, 6 distractors of 3 ids in every gallery"


def test_prepared_trees_match_identities_by_name(tmp_path: Path) -> None:
    """Trap 10: numbered apart, 20 would be the first identity of query1 and the second of gallery1_all."""
    split = make_split(sources.folders(a_tree(tmp_path)), protocol="prepared", label="subject")
    assert len(split.test) == 2
    assert [len(draw.gallery) for draw in split.test] == [6, 12]
    for draw in split.test:
        assert labels(split, draw.query) == {"20", "30"}
        for row in draw.query:
            right = [other for other in draw.gallery if split.identities[other] == split.identities[row]]
            assert right
            assert {split.paths[other].split("/")[1] for other in right} == {split.paths[row].split("/")[1]}


def test_prepared_galleries_that_name_other_people_are_refused(tmp_path: Path) -> None:
    root = a_tree(tmp_path)
    for identity in ("20", "30"):
        (root / "gallery0" / identity).rename(root / "gallery0" / f"person-{identity}")
    with pytest.raises(ProtocolError, match="query0: no identity of its 6 photos is in the gallery"):
        make_split(sources.folders(root), protocol="prepared", label="subject")


def with_splits(**places: str) -> Manifest:
    """Subjects by split: `train="abc"` gives three photos each of a, b and c."""
    rows = [
        {"path": f"{split}/{who}/{photo}.jpg", "subject": who, "split": split}
        for split, subjects in places.items()
        for who in subjects
        for photo in range(3)
    ]
    return Manifest(pl.DataFrame(rows), Path("/data"))


def test_prepared_query_and_gallery_are_one_draw() -> None:
    manifest = with_splits(train="abcdef", query="uvw", gallery="uvx", distractor="yz")
    split = make_split(manifest, protocol="prepared", label="subject")
    (draw,) = split.test
    assert labels(split, draw.query) == {"u", "v"}
    assert labels(split, draw.gallery) == {"u", "v", "x", "y", "z"}
    assert "the queries: 3 photos have no right answer in the gallery, left out" in split.notes


def test_prepared_test_is_drawn() -> None:
    split = make_split(with_splits(train="abcdef", test="uvw", distractor="z"), protocol="prepared", label="subject")
    assert [(len(draw.gallery), len(draw.query)) for draw in split.test] == [(6, 6)] * 10


@pytest.mark.parametrize(("validation", "queried"), [("ab", "ab"), ("gh", "gh"), ("abgh", "ab")])
def test_prepared_validation_as_given(validation: str, queried: str) -> None:
    manifest = with_splits(train="abcdef", validation=validation, test="uvw")
    split = make_split(manifest, protocol="prepared", label="subject")
    assert labels(split, split.train) == set("abcdef")
    assert labels(split, split.validation[0].query) == set(queried)
    assert labels(split, split.validation[0].query) <= labels(split, split.validation[0].gallery)


def test_prepared_leaks_are_named_and_choose_no_model() -> None:
    """Trap 7 on splits that others made."""
    manifest = with_splits(train="abcdefu", validation="vgh", test="uvw")
    split = make_split(manifest, protocol="prepared", label="subject")
    assert "LEAK: 1 subjects are trained on and tested, as given: u" in split.notes
    assert labels(split, split.validation[0].query) == {"g", "h"}
    assert any(note.startswith("3 validation photos of tested subjects left out") for note in split.notes)
    for how in VALIDATIONS:
        split = make_split(
            with_splits(train="abcdefu", test="uvw"), protocol="prepared", label="subject", validation=how
        )
        assert "u" not in labels(split, split.validation[0].query)


def test_label_kinds_differ() -> None:
    counts = {
        kind: len(make_split(like_hands11k(), protocol="disjoint", label=kind).test[0].gallery)
        for kind in ("subject", "hand", "view")
    }
    assert counts == {"subject": 15, "hand": 30, "view": 60}


def test_a_view_narrows_queries_not_the_gallery() -> None:
    split = make_split(like_hands11k(), protocol="disjoint", view="palmar-left")
    views = like_hands11k().views
    assert {views[row] for row in split.test[0].query} == {"palmar-left"}
    assert {views[row] for row in split.train} == {"palmar-left"}
    assert len(split.test[0].gallery) == 60


def test_a_queried_person_is_represented_in_the_view_asked_for() -> None:
    """With the label subject a palmar photo would be a right answer to a dorsal query, and another task."""
    split = make_split(like_hands11k(), protocol="disjoint", view="palmar-left", label="subject")
    for draw in split.test:
        assert {like_hands11k().views[row] for row in draw.gallery} == {"palmar-left"}


IMPOSSIBLE = {
    "accessories": (lambda: make_split(own_data(), protocol="hands11k", label="subject"), "no column 'accessories'"),
    "view": (
        lambda: make_split(like_hands11k(), protocol="hands11k", view="dorsal-rigth"),
        r"no photo of view 'dorsal-rigth' \(did you mean 'dorsal-right'\?\); views in the manifest: dorsal-left, ",
    ),
    "no views": (
        lambda: make_split(own_data(), protocol="disjoint", label="subject", view="dorsal"),
        "neither aspect nor",
    ),
    "ids": (
        lambda: make_split(
            Manifest(like_hands11k().table.with_columns(subject=pl.lit("bob")), Path("/data")), protocol="hands11k"
        ),
        "numeric subject ids; found bob",
    ),
    "distractors": (lambda: make_split(like_hands11k(), protocol="hd"), "needs the distractors of folder 502-712"),
    "no split": (lambda: make_split(own_data(), protocol="prepared", label="subject"), "found no split at all"),
    "no test": (
        lambda: make_split(with_splits(train="ab", gallery="c"), protocol="prepared", label="subject"),
        "found gallery, train",
    ),
    "single photos": (
        lambda: make_split(
            own_data().filter(pl.col("path").str.ends_with("/0.jpg")), protocol="disjoint", label="subject"
        ),
        "no test identity has two photos",
    ),
    "share": (
        lambda: make_split(own_data(), protocol="disjoint", label="subject", validation_share=1.0),
        "holding out 1.0 of 11 training subjects for validation leaves none",
    ),
    "test share": (
        lambda: make_split(own_data(), protocol="disjoint", label="subject", test_share=0.99),
        "a test share of 0.99 of 21 subjects leaves none for training",
    ),
    "draws": (lambda: make_split(own_data(), protocol="disjoint", label="subject", draws=0), "at least one is needed"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_the_data_cannot_give_is_said(case: str) -> None:
    make, message = IMPOSSIBLE[case]
    with pytest.raises(ProtocolError, match=message):
        make()


def test_a_label_without_its_column_is_refused() -> None:
    with pytest.raises(ManifestError, match="no side, which the label 'hand' needs"):
        make_split(own_data(), protocol="disjoint", label="hand")


def test_describe_says_what_it_cannot_split() -> None:
    told = describe(with_splits(train="ab", gallery="c"))
    assert told["photos"] == 9
    assert told["splits"] == {"train": 6, "gallery": 3}
    assert "found gallery, train" in told["protocols"]["prepared"]["pooled"]["error"]
    assert set(PROTOCOLS) > set(told["protocols"])


def test_describe_own_data() -> None:
    told = describe(own_data())
    assert told["photos_per_identity"]["subject"] == {
        "identities": 21,
        "fewest": 1,
        "median": 5,
        "most": 5,
        "with_one_photo": 1,
    }
    assert told["protocols"]["disjoint"]["pooled"]["draws_hash"]


def people_of(count: int, each: int = 4, **columns: str) -> Manifest:
    """People a, b, c ... with so many photos, all alike in other columns."""
    rows = [
        {"path": f"{who}/{n}.jpg", "subject": who, **columns} for who in "abcdefghijklmnop"[:count] for n in range(each)
    ]
    return Manifest(pl.DataFrame(rows), Path("/data"))


class TestOneIdentityTellsNothing:
    """Searched for among itself alone it is always found: rank-1 is 100 %, whatever the model."""

    def test_held_back_alone(self) -> None:
        with pytest.raises(ProtocolError) as error:
            make_split(people_of(6), protocol="disjoint", label="subject")
        assert str(error.value) in (
            f"the gallery of the validation holds one identity only ({who}), so rank-1 is 100 % for any model: "
            "hold out more than 1 of 3 training subjects (data.validation_share, now 0.2), give more subjects, or "
            "validate with one photo of each (data.validation: closed-set)"
            for who in "abcdef"
        )
        split = make_split(people_of(6), protocol="disjoint", label="subject", validation="closed-set")
        assert len(labels(split, split.validation[0].query)) == 3

    def test_where_there_are_four_two_are_held_back_and_that_is_said(self) -> None:
        split = make_split(people_of(8), protocol="disjoint", label="subject", validation_share=0.01)
        assert len(labels(split, split.validation[0].gallery)) == 2
        assert (
            "2 of 4 training subjects held out for validation: 8 photos "
            "(a share of 0.01 is 1, whom any model would find)" in split.notes
        )

    def test_views_of_one_person_are_identities_and_it_is_said_what_that_tells(self) -> None:
        table = pl.concat(
            [people_of(6).table.with_columns(aspect=pl.lit(of), path=f"{of}/" + pl.col("path")) for of in VALUES]
        )
        manifest = Manifest(table.with_columns(side=pl.lit("left")), Path("/data"))
        split = make_split(manifest, protocol="disjoint", label="view")
        assert len(people(split, split.validation_rows)) == 1
        assert any(note.startswith("validation contains the views of one person only") for note in split.notes)

    def test_held_back_with_another_who_has_one_photo(self) -> None:
        seeds = {}
        for seed in range(3):
            try:
                make_split(own_data(), protocol="disjoint", label="subject", seed=seed)
            except ProtocolError as error:
                seeds[seed] = str(error)
        assert list(seeds) == [2]
        assert "validation has queries of one identity only (h), too few to choose a model by" in seeds[2]

    @pytest.mark.parametrize("validation", ["a", "g"])
    def test_given_with_the_data(self, validation: str) -> None:
        manifest = with_splits(train="abcdef", validation=validation, test="uvw")
        with pytest.raises(
            ProtocolError, match=r"one identity only .*give validation photos of two identities or more"
        ):
            make_split(manifest, protocol="prepared", label="subject")

    def test_a_closed_set_of_one(self) -> None:
        table = pl.concat([people_of(6, 1).table, people_of(1, 4).table.tail(3)])
        manifest = Manifest(table.with_columns(split=pl.lit("train")), Path("/data"))
        tested = with_splits(test="uvw").table
        both = Manifest(pl.concat([manifest.table, tested], how="diagonal"), Path("/data"))
        with pytest.raises(
            ProtocolError, match=r"validation has queries of one identity only \(a\), .*: two training identities"
        ):
            make_split(both, protocol="prepared", label="subject", validation="closed-set")

    def test_a_test_of_one(self) -> None:
        with pytest.raises(ProtocolError, match=r"gallery of the test holds one identity only .*test_share"):
            make_split(people_of(9), protocol="disjoint", label="subject", test_share=0.05)
        given = with_splits(train="abcdef", query="u", gallery="u")
        given = Manifest(given.table.with_columns(path=pl.col("path")), Path("/data"))
        with pytest.raises(ProtocolError, match=r"gallery of the test holds one identity only \(u\).*distractors"):
            make_split(given, protocol="prepared", label="subject")
        split = make_split(
            with_splits(train="abcdef", query="u", gallery="u", distractor="x"), protocol="prepared", label="subject"
        )
        assert labels(split, split.test[0].gallery) == {"u", "x"}

    def test_where_nothing_trains_it_is_not_missed(self) -> None:
        split = make_split(people_of(6), protocol="disjoint", label="subject", trains=False)
        assert (len(split.train), len(split.validation_rows), split.validation) == (12, 0, ())
        assert any(note.startswith("no validation: the gallery of the validation holds one") for note in split.notes)
        usual = make_split(people_of(9), protocol="disjoint", label="subject")
        assert make_split(people_of(9), protocol="disjoint", label="subject", trains=False).hash == usual.hash

    def test_it_is_described_all_the_same(self) -> None:
        told = describe(people_of(6))["protocols"]["disjoint"]["pooled"]
        assert (told["train_photos"], told["test_photos"], told["queries"]) == (12, 12, 9)
        assert any(note.startswith("no validation: ") for note in told["notes"])
        alone = describe(people_of(1))
        assert (alone["photos"], alone["subjects"]) == (4, 1)
        assert "leaves none for training" in alone["protocols"]["disjoint"]["pooled"]["error"]


class TestWhichLabelWouldDo:
    """Often a finer label leaves each identity with one photo: the message says which one does not."""

    def views(self, each: int = 1) -> Manifest:
        rows = [
            {"path": f"{who}/{aspect}-{side}-{n}.jpg", "subject": who, "aspect": aspect, "side": side}
            for who in "abcdefgh"
            for aspect in VALUES
            for side in ("left", "right")
            for n in range(each)
        ]
        return Manifest(pl.DataFrame(rows), Path("/data"))

    def test_of_the_test(self) -> None:
        with pytest.raises(ProtocolError) as error:
            make_split(self.views(), protocol="disjoint", label="view")
        assert str(error.value) == (
            "disjoint: no test identity has two photos, one as query and one for the gallery, with data.label: "
            "view; label subject has 4 identities, label hand has 8 identities with two photos or more: set "
            "data.label, or give more photos per identity"
        )

    def test_in_one_view(self) -> None:
        with pytest.raises(ProtocolError, match=r"^disjoint \(dorsal-left\): .*no other data.label has one with two"):
            make_split(self.views(), protocol="disjoint", label="view", view="dorsal-left")

    def test_of_the_validation(self) -> None:
        one = self.views().table.with_columns(split=pl.lit("train"))
        two = self.views(2).table.with_columns(split=pl.lit("test"), subject="t" + pl.col("subject"))
        both = Manifest(pl.concat([one, two.with_columns(path="t/" + pl.col("path"))]), Path("/data"))
        for validation, what in (("held-out", "2 of 8 subjects held out"), ("closed-set", "one photo of each")):
            with pytest.raises(
                ProtocolError, match=rf"^{what}.*no validation identity.*label subject has \d identities"
            ):
                make_split(both, protocol="prepared", label="view", validation=validation)  # type: ignore[arg-type]

    def test_of_given_queries(self) -> None:
        table = self.views().table.with_columns(
            split=pl.when(pl.col("subject") < "e")
            .then(pl.lit("train"))
            .otherwise(pl.when(pl.col("aspect") == "palmar").then(pl.lit("query")).otherwise(pl.lit("gallery")))
        )
        with pytest.raises(
            ProtocolError, match=r"label subject has 8 queries, label hand has 8 queries with an answer"
        ):
            make_split(Manifest(table, Path("/data")), protocol="prepared", label="view")
