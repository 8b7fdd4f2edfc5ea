"""A number of one's own in a section of its own: written once, shown wherever numbers are. Results have a format."""

import json
import shutil
from pathlib import Path

import pytest

from handreid.errors import RunError
from handreid.evaluation import sections
from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.sections import EvaluationContext
from handreid.files import read_json, write_json
from handreid.metric_table import METRICS, MetricInfo
from handreid.report.compare.runs import compare_runs
from handreid.report.compare.tables import markdown
from handreid.report.page.write import write_report
from handreid.runs.folder import Run, open_run
from handreid.runs.results import Number, SectionResult, read_evaluation, read_ladder
from handreid.tracking.payload import evaluation_payload
from tests.cli.test_commands import complaint, handreid


class Verification:
    name = "verification"

    def __call__(self, context: EvaluationContext) -> SectionResult:
        value = len(context.embeddings) / 1000
        return SectionResult(
            numbers={"eer": Number(value=value, low=0.01, high=0.09)}, about=f"{len(context.rows)} photos are compared"
        )


@pytest.fixture(scope="module")
def with_verification():
    """One file and a line in the table of metrics, and nothing else: that is the whole of a new number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, "eer", MetricInfo("eer", "EER", "verification", higher_is_better=False))
        patch.setattr(sections, "SECTIONS", (*sections.SECTIONS, Verification()))
        yield


@pytest.fixture(scope="module")
def runs(ladder: Path, tmp_path_factory: pytest.TempPathFactory, with_verification: None) -> list[Run]:
    root = tmp_path_factory.mktemp("sections")
    found = []
    for name in ("micro-zero", "micro-slow"):
        run = open_run(shutil.copytree(ladder / name, root / name))
        evaluate(run)
        found.append(run)
    return found


class TestASectionOfItsOwn:
    def test_it_is_in_the_file_and_reads_back(self, runs: list[Run]):
        written = read_json(runs[0].evaluation)
        assert written["sections"]["verification"]["numbers"]["eer"]["low"] == 0.01
        read = read_evaluation(runs[0].evaluation)
        assert read.number_sections["verification"].numbers["eer"].high == 0.09
        assert set(read.number_sections) == {"separation", "verification"}

    def test_the_command_line_shows_it(self, runs: list[Run]):
        shown = handreid("evaluate", runs[0].folder)
        assert shown.code == 0, shown.err
        (line,) = [line for line in shown.out.splitlines() if line.strip().startswith("EER")]
        assert "[1.0, 9.0]" in line
        assert "lower" in line
        assert "photos are compared" in shown.out

    def test_trackers_get_it(self, runs: list[Run]):
        numbers, _ = evaluation_payload(runs[0].evaluation)
        assert [name for name in numbers if "eer" in name] != []

    def test_comparisons_and_reports_show_it(self, runs: list[Run], tmp_path: Path):
        text = markdown(compare_runs([run.folder for run in runs], resamples=100))
        assert "EER" in text
        assert "[1.0, 9.0]" in text
        page = write_report([run.folder for run in runs], tmp_path / "page.html", photos=False).read_text()
        assert "EER" in page

    def test_a_run_of_before_lies_beside_it(self, runs: list[Run], ladder: Path):
        """An evaluation without the section is no error: it has no such number."""
        text = markdown(compare_runs([ladder / "micro-zero", runs[1].folder], resamples=100))
        assert "EER" in text


class TestFormats:
    @pytest.mark.parametrize("format_", [None, 0, 99])
    def test_an_evaluation_of_another_version_is_refused(self, ladder: Path, tmp_path: Path, format_: int | None):
        run = Run(shutil.copytree(ladder / "micro-zero", tmp_path / "run"))
        content = {k: v for k, v in read_json(run.evaluation).items() if k not in ("checksum", "format")}
        write_json(run.evaluation, content if format_ is None else content | {"format": format_})
        with pytest.raises(RunError, match=r"evaluation\.json"):
            read_evaluation(run.evaluation)
        assert "evaluation.json" in complaint("compare", run.folder, ladder / "micro-slow")

    def test_results_cannot_be_changed(self, ladder: Path):
        read = read_evaluation(ladder / "micro-zero" / "evaluation.json")
        with pytest.raises(ValueError, match="frozen"):
            read.recipe = "another"
        assert json.loads(read.model_dump_json())["format"] == read.format

    def test_a_ladder_of_another_version_is_refused(self, tmp_path: Path):
        write_json(tmp_path / "ladder.json", {"format": 1, "rungs": []})
        with pytest.raises(RunError, match=r"ladder\.json"):
            read_ladder(tmp_path)
