"""Figures of runs: what their lines are, that nothing overlaps, and what their captions say."""

import re
from pathlib import Path

import numpy as np
import pytest

from handreid.errors import OutputError, RunError
from handreid.metrics.intervals import intervals
from handreid.report.compare.runs import Comparison, compare_runs, run_folders
from handreid.report.figures import cmc, ladder, style
from handreid.report.figures.training_series import training_series
from handreid.runs.folder import Run
from tests.cli.test_commands import complaint, handreid
from tests.edits import write_metrics
from tests.made_runs import GALLERY, made_evaluation, made_ranks, made_run
from tests.plain_results import typed

pytestmark = pytest.mark.usefixtures("coarse_figures")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curves")
    for name, share in (("a-base", 0.5), ("b-better", 0.9), ("c-worse", 0.1)):
        made_run(root / name, made_ranks(share))
    made_run(root / "d-alike", made_ranks(0.5, seed=4))
    return root


@pytest.fixture(scope="module")
def compared(runs: Path) -> Comparison:
    return compare_runs(run_folders([runs]), resamples=500)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that are saved, to be asked for what is in them."""
    kept: list = []
    save = style.save
    monkeypatch.setattr(style, "save", lambda figure, *rest: (kept.append(figure), save(figure, *rest))[1])
    return kept


def texts(figure) -> list[str]:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [one.get_text() for one in found if one.get_text()]


def overlaps(boxes: list) -> list:
    return [(a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.overlaps(b)]


class TestCmc:
    def test_it_is_rank_k_of_the_evaluation(self):
        """With two right answers the first counts."""
        evaluation = made_evaluation("x", made_ranks(0.4, right=2), "d", "m")
        curve = cmc.cmc_points(typed(evaluation))
        assert list(curve.ranks) == list(range(1, 21))
        for k in (1, 5, 10):
            assert curve.value[k - 1] == pytest.approx(evaluation["metrics"][f"rank{k}"]["value"])
        assert (np.diff(curve.value) >= 0).all()
        assert ((curve.low <= curve.value) & (curve.value <= curve.high)).all()

    def test_its_intervals_are_over_subjects(self):
        evaluation = made_evaluation("x", made_ranks(0.4), "d", "m")
        right = np.array([ranks[0] <= 3 for draw in evaluation["draws"] for ranks in draw["ranks"]], float)
        people, draws = np.tile(np.repeat(np.arange(20), 4), 2), np.repeat([0, 1], 80)
        found = intervals({"3": right}, people, draws, resamples=2000)["3"]
        curve = cmc.cmc_points(typed(evaluation))
        assert (curve.low[2], curve.high[2]) == pytest.approx((found.low, found.high))

    def test_it_ends_with_the_gallery_and_leaves_out_who_has_no_answer(self):
        ranks = made_ranks(0.5)
        ranks[0] = []
        evaluation = made_evaluation("x", ranks, "d", "m")
        curve = cmc.cmc_points(typed(evaluation), up_to=500)
        assert len(curve.ranks) == GALLERY
        assert curve.value[-1] == 1

    def test_names_stand_at_the_ends_without_touching(self, compared: Comparison, tmp_path: Path, drawn: list):
        written = cmc.cmc_figure(compared, tmp_path / "cmc.svg", command="handreid figure cmc x")
        assert written == [tmp_path / "cmc.svg", tmp_path / "cmc.txt"]
        (axes,) = drawn[0].axes
        assert [len(line.get_xdata()) for line in axes.lines] == [20] * 4
        assert not axes.collections  # four runs: no bands
        names = [text for text in axes.texts if text.get_text() in {run.name for run in compared.runs}]
        assert len(names) == 4
        assert not overlaps([text.get_window_extent() for text in names])
        ends = {run.name: line.get_ydata()[-1] for run, line in zip(compared.runs, axes.lines, strict=True)}
        by_height = sorted(names, key=lambda text: text.get_window_extent().y0)
        assert [ends[text.get_text()] for text in by_height] == sorted(ends.values())
        caption = (tmp_path / "cmc.txt").read_text()
        assert re.search(r"a-base \d+\.\d at 1, \d+\.\d at 5", caption)
        assert "manifest aaaaaaaa, draws dddddddd" in caption
        assert "Made by: handreid figure cmc x." in caption
        assert "difference" not in caption

    def test_few_runs_have_bands(self, runs: Path, tmp_path: Path, drawn: list):
        two = compare_runs([runs / "a-base", runs / "b-better"], resamples=100)
        cmc.cmc_figure(two, tmp_path / "cmc.png")
        assert len(drawn[0].axes[0].collections) == 2
        low, high = drawn[0].axes[0].get_ylim()
        assert low < 100 * cmc.cmc_points(two.runs[0].evaluation).low[0]
        assert high <= 101

    def test_labels_are_spread_as_little_as_need_be(self):
        apart = cmc.spread_labels(np.array([0.0, 1.0, 1.1, 3.0]), 0.5, 4.0)
        assert apart == pytest.approx([0, 0.8, 1.3, 3.0])
        crowded = cmc.spread_labels(np.full(5, 2.0), 1.0, 2.0)
        assert crowded == pytest.approx([0, 0.5, 1, 1.5, 2])
        assert cmc.spread_labels(np.array([1.95, 2.0]), 0.5, 2.0) == pytest.approx([1.5, 2.0])


class TestLadder:
    def test_marks_tell_the_verdicts_without_colour(self, compared: Comparison, tmp_path: Path, drawn: list):
        ladder.ladder_figure(compared, tmp_path / "ladder.png", command="handreid figure ladder x")
        shapes = {name: ladder._VERDICTS[name] for name in ("reference", "better", "worse", "within noise")}
        assert len({(mark, filled) for mark, _, filled in shapes.values()}) == 4
        for axes, metric in zip(drawn[0].axes, ("rank1", "map"), strict=True):
            verdicts = [run.against[metric].verdict for run in compared.runs[1:]]
            assert verdicts == ["better", "worse", "within noise"]
            for number, (verdict, run) in enumerate(zip(["reference", *verdicts], compared.runs, strict=True)):
                (x, y), score = axes.collections[number].get_offsets()[0], run.evaluation.metrics[metric]
                assert (x, y) == pytest.approx((100 * score.value, number))
                hollow = not shapes[verdict][2]
                assert (axes.collections[number].get_facecolor()[0][:3].min() == 1) == hollow
        words = texts(drawn[0])
        gained = compared["b-better"].against["rank1"].value
        assert f"+{100 * gained:.1f}" in words
        assert "a-base, the reference" in words
        assert {"better", "worse", "within noise"} <= set(words)

    def test_the_caption_has_every_verdict_in_words(self, compared: Comparison, tmp_path: Path):
        ladder.ladder_figure(compared, tmp_path / "ladder.svg", command="handreid figure ladder x")
        caption = (tmp_path / "ladder.txt").read_text()
        assert re.search(
            r"b-better against a-base: rank-1 better \+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\], mAP better", caption
        )
        assert "80 queries of 20 subjects in 30 gallery photos, mean of 2 draws" in caption
        assert "3 comparisons with one reference" in caption
        assert "Made by: handreid figure ladder x." in caption

    @pytest.mark.parametrize("count", [1, 2, 25])
    def test_rows_of_any_number_do_not_touch(self, count: int, tmp_path: Path, drawn: list):
        for number in range(count):
            name = f"a-recipe-with-a-longer-name-{number:02d}"
            made_run(tmp_path / "runs" / name, made_ranks(number / 30))
        ladder.ladder_figure(compare_runs(run_folders([tmp_path / "runs"]), resamples=100), tmp_path / "ladder.png")
        figure = drawn[0]
        figure.canvas.draw()
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in (*axes.texts, *axes.get_yticklabels()) if text.get_text()]
            assert not overlaps(boxes)
            assert min(box.x0 for box in boxes) >= 0
        marks = [axes.get_xlim()[0] for axes in figure.axes]
        assert marks[0] < 5  # the lowest interval is in the picture


class TestTraining:
    def test_lines_are_named_by_term_and_group(self, runs: Path):
        (stage,) = training_series(Run(runs / "a-base"))
        lines = {panel.name: {line.name: list(line.values) for line in panel.series} for panel in stage.panels}
        assert (stage.kind, stage.epochs) == ("fine_tune", 3)
        assert lines["loss"] == {"loss": [5.0, 2.5]}
        assert lines["terms"] == {"cross_entropy": [4.0, 2.0]}
        assert lines["learning rate"] == {"head": [1e-3, 1e-3], "encoder": [1e-4, 1e-4]}  # decayed and not are one
        assert lines["gradient norm"] == {"before clipping": [1.0, 1.0]}
        assert lines["validation"] == {"rank-1": [0.5, 0.5], "mAP": [0.59, 0.58]}

    def test_the_epoch_that_was_kept_is_the_one_that_training_kept(self, runs: Path, tmp_path: Path):
        assert training_series(Run(runs / "a-base"))[0].kept == 1  # the best by validation mAP
        last = made_run(tmp_path / "last", made_ranks(0.5), changes=["stages.0.keep=last"])
        assert training_series(Run(last))[0].kept == 2

    def test_many_rates_are_named_at_the_ends_only(self, tmp_path: Path):
        run = Run(made_run(tmp_path / "run", made_ranks(0.5)))
        rates = {f"lr, encoder block {n}, decayed": 10.0**-n for n in range(8)}
        write_metrics(run, [{"stage": 0, "epoch": 1, "loss": 1.0, "seconds": 1.0, **rates}])
        (panel,) = (panel for panel in training_series(run)[0].panels if panel.name == "learning rate")
        assert [line.name for line in panel.series if line.named] == ["encoder block 0", "encoder block 7"]
        assert len(panel.series) == 8

    def test_a_run_without_epochs_says_why(self, tmp_path: Path):
        zero = made_run(tmp_path / "zero", made_ranks(0.5), changes=["stages=[]"], seconds=())
        with pytest.raises(RunError, match="its recipe has no stages"):
            training_series(Run(zero))

    def test_stages_stand_beside_each_other(self, tmp_path: Path, drawn: list):
        stages = "stages=[{kind: learn_prompts, epochs: 5}, {kind: fine_tune, epochs: 12}]"
        run = Run(made_run(tmp_path / "run", made_ranks(0.5), changes=[stages]))
        prompts = [
            {"stage": 0, "epoch": n, "loss": 3.0, "image_to_text": 1.0, "prompts_rank1": n / 9, "seconds": 1.0}
            for n in (1, 2, 3, 4, 5)
        ]
        tuning = [
            {
                "stage": 1,
                "epoch": n,
                "loss": 9.0 / n,
                "0_triplet": 0.1,
                "validation_map": 0.5 + (n == 2) / 9,
                "seconds": 1.0,
            }
            for n in (1, 2, 3)
        ]
        write_metrics(run, (*prompts, *tuning))
        called = handreid("figure", "training", run.folder, "--out", tmp_path / "t.svg")
        assert called.code == 0, called.err
        columns = sorted({round(axes.get_position().x0, 3) for axes in drawn[0].axes})
        assert len(columns) == 2
        words = texts(drawn[0])
        assert {"stage 0: learn_prompts", "stage 1: fine_tune", "own text nearest 55.6", "kept: epoch 2"} <= set(words)
        caption = (tmp_path / "t.txt").read_text()
        assert "Stage 0, learn_prompts: 5 epochs." in caption
        assert "Stage 1, fine_tune: 3 of 12 epochs; the weights of epoch 2 were kept (dashed line)." in caption
        assert f"Made by: handreid figure training {run.folder} --out {tmp_path / 't.svg'}." in caption


@pytest.mark.parametrize("kind", ["cmc", "ladder"])
def test_the_command_writes_the_figure_and_its_caption(kind: str, runs: Path, tmp_path: Path):
    first, second = tmp_path / "x.svg", tmp_path / "again" / "x.svg"
    second.parent.mkdir()
    for out in (first, second):
        called = handreid("figure", kind, runs, "--out", out)
        assert called.code == 0, called.err
        assert called.out == f"written to {out} and {out.with_suffix('.txt')}\n"
    without = [re.sub(r"Made by.*?\.\s*(?=<)", "", path.read_text(), flags=re.S) for path in (first, second)]
    assert without[0] == without[1]


def test_places_are_checked_before_the_work(runs: Path, tmp_path: Path):
    for kind in ("cmc", "ladder"):
        assert "the suffix must be .png or .svg or .pdf" in complaint("figure", kind, runs, "--out", tmp_path / "x.jpg")
    assert "does not exist" in complaint("figure", "training", runs / "a-base", "--out", tmp_path / "none" / "x.png")
    with pytest.raises(OutputError, match="the suffix must be"):
        ladder.ladder_figure(compare_runs([runs / "a-base"]), tmp_path / "x.gif")
