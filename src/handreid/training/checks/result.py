"""What a check says, and what happens when some of them fail."""

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
    """A check by its name, and what it found: numbers and names, and where it failed what to do."""

    name: str
    passed: bool
    found: str
    seconds: float = 0.0


def verdict(name: str, wrong: Sequence[str], found: str, advice: str = "") -> CheckResult:
    """Passed with what was found where nothing is wrong; else all that is, and what to do."""
    if not wrong:
        return CheckResult(name, True, found)
    return CheckResult(name, False, "; ".join(wrong) + (f": {advice}" if advice else ""))


def timed(check: Callable[[], CheckResult | Sequence[CheckResult] | None]) -> list[CheckResult]:
    """What a check gives, with its time noted at the last; nothing where there is nothing to check."""
    began = time.perf_counter()
    found = check()
    results = [found] if isinstance(found, CheckResult) else list(found or ())
    took = time.perf_counter() - began
    return [*results[:-1], *(replace(result, seconds=took) for result in results[-1:])]


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


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
