"""The functions of handreid check types and shapes while tests run."""

from dataclasses import dataclass

import numpy as np
import pytest
from beartype.roar import BeartypeException
from jaxtyping import Float, TypeCheckError

from handreid.files import write_text
from handreid.metrics.ranking_metrics import hit
from tests.type_checks import checked


def test_types_are_checked_where_nothing_has_a_shape():
    with pytest.raises(BeartypeException):
        write_text("a.txt", 3)  # type: ignore[arg-type]


def test_shapes_are_checked_across_arguments():
    @checked
    def dot(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
        return float(a @ b)

    assert dot(np.ones(3), np.ones(3)) == 3
    with pytest.raises(TypeCheckError):
        dot(np.ones(3), np.ones(4))


def test_a_result_is_checked_against_the_arguments():
    @checked
    def twice(a: Float[np.ndarray, " n"], *, right: bool) -> Float[np.ndarray, " n"]:
        return a if right else np.concatenate([a, a])

    assert len(twice(np.ones(3), right=True)) == 3
    with pytest.raises(TypeCheckError):
        twice(np.ones(3), right=False)


def test_a_shape_may_name_the_value_of_an_argument():
    @checked
    def square(size: int, given: int) -> Float[np.ndarray, "{size} {size}"]:
        return np.ones((given, given))

    assert square(3, 3).shape == (3, 3)
    with pytest.raises(TypeCheckError):
        square(3, 4)


def test_calls_within_a_call_have_dimensions_of_their_own():
    @checked
    def length(a: Float[np.ndarray, " n"]) -> int:
        return len(a)

    @checked
    def total(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> int:
        return length(np.ones(9)) + length(a) + length(b)

    assert total(np.ones(3), np.ones(3)) == 15
    with pytest.raises(TypeCheckError):
        total(np.ones(3), np.ones(4))


def test_so_are_values_with_fields():
    @checked
    @dataclass(frozen=True)
    class Pair:
        a: Float[np.ndarray, " n"]
        b: Float[np.ndarray, " n"]

    with pytest.raises(TypeCheckError):
        Pair(np.ones(3), np.ones(4))


def test_it_is_the_package_that_is_checked():
    with pytest.raises(TypeCheckError):
        hit(np.ones(3), 1)  # type: ignore[arg-type]
