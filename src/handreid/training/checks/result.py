"""Results of checks, and the error when some fail."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handreid.errors import CheckError
from handreid.files import write_json

FILE = "checks.json"


@dataclass(frozen=True)
class CheckResult:
    """`found` has numbers and names, and for a failed check what is wrong and what to do."""

    name: str
    passed: bool
    found: str
    seconds: float = 0.0


def verdict(name: str, wrong: Sequence[str], summary: str, advice: str = "") -> CheckResult:
    """Passed with the summary if nothing is wrong; else failed with all that is wrong, and the advice."""
    if not wrong:
        return CheckResult(name, True, summary)
    return CheckResult(name, False, "; ".join(wrong) + (f": {advice}" if advice else ""))


def timed(check: Callable[[], CheckResult | Sequence[CheckResult] | None]) -> list[CheckResult]:
    """The results of a check, the last one with its time; empty where there is nothing to check."""
    start = time.perf_counter()
    outcome = check()
    results = [outcome] if isinstance(outcome, CheckResult) else list(outcome or ())
    seconds = time.perf_counter() - start
    return [*results[:-1], *(replace(result, seconds=seconds) for result in results[-1:])]


def raise_failed(results: Sequence[CheckResult], where: str) -> None:
    """Raises CheckError with every check that failed."""
    failed = [result for result in results if not result.passed]
    if failed:
        lines = "\n".join(f"  {result.name}: {result.found}" for result in failed)
        raise CheckError(
            f"{where}: {len(failed)} of {len(results)} checks failed before the first step\n{lines}\n"
            "docs/checks.md explains each one; to skip one that does not apply to your objective, use "
            f"--set checks.skip=[{failed[0].name}]"
        )


def write_results(folder: Path, results: Sequence[CheckResult], skipped: Sequence[str]) -> None:
    """Writes checks.json into a stage's folder."""
    write_json(folder / FILE, content(results, skipped))


def content(results: Sequence[CheckResult], skipped: Sequence[str]) -> dict[str, Any]:
    return {
        "passed": all(result.passed for result in results),
        "seconds": round(sum(result.seconds for result in results), 3),
        "checks": [
            {"name": result.name, "passed": result.passed, "found": result.found, "seconds": round(result.seconds, 3)}
            for result in results
        ],
        "skipped": list(skipped),
    }


def listed(names: Sequence[str], limit: int = 4) -> str:
    """The first `limit` names, and how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
