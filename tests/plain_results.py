"""Results as files have them: tests look into plain values, and make changed ones from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from handreid.evaluation.evaluate import evaluate
from handreid.evaluation.matrix import matrix_of
from handreid.runs.folder import Run
from handreid.runs.results import Evaluation, Matrix


def evaluated(run: Run, **options: Any) -> tuple[Path, dict[str, Any]]:
    path, found = evaluate(run, **options)
    return path, json.loads(found.model_dump_json())


def crossed(run: Run, by: Any, **options: Any) -> tuple[Path, dict[str, Any]]:
    path, found = matrix_of(run, by, **options)
    return path, json.loads(found.model_dump_json())


def typed(content: Mapping[str, Any]) -> Evaluation:
    found = json.loads(json.dumps(content))
    found.pop("checksum", None)  # of a file
    return Evaluation.model_validate(found)


def typed_matrix(content: Mapping[str, Any]) -> Matrix:
    return Matrix.model_validate(json.loads(json.dumps(content)))


def plain(results: Any) -> Any:
    """Models, and lists and mappings of models, as their JSON has them."""
    return json.loads(TypeAdapter(Any).dump_json(results))
