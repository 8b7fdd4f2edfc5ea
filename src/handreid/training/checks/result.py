"""What a check says, and what happens when some of them fail."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handreid.errors import GateError
from handreid.files import write_json

FILE = "gates.json"


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
    gates = [found] if isinstance(found, CheckResult) else list(found or ())
    took = time.perf_counter() - began
    return [*gates[:-1], *(replace(gate, seconds=took) for gate in gates[-1:])]


def raise_failed(gates: Sequence[CheckResult], where: str) -> None:
    """Raises GateError with every check that failed."""
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        lines = "\n".join(f"  {gate.name}: {gate.found}" for gate in failed)
        raise GateError(
            f"{where}: {len(failed)} of {len(gates)} checks failed before the first step\n{lines}\n"
            "docs/checks.md explains each one; to skip one that does not apply to your objective, use "
            f"--set gates.skip=[{failed[0].name}]"
        )


def write_results(folder: Path, gates: Sequence[CheckResult], skipped: Sequence[str]) -> None:
    """Writes gates.json into a stage's folder."""
    write_json(folder / FILE, content(gates, skipped))


def content(gates: Sequence[CheckResult], skipped: Sequence[str]) -> dict[str, Any]:
    return {
        "passed": all(gate.passed for gate in gates),
        "seconds": round(sum(gate.seconds for gate in gates), 3),
        "gates": [
            {"name": gate.name, "passed": gate.passed, "found": gate.found, "seconds": round(gate.seconds, 3)}
            for gate in gates
        ],
        "skipped": list(skipped),
    }


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
