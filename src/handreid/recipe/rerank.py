"""Re-ranking and query expansion, as a recipe or a command line states them."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from handreid.errors import RecipeError
from handreid.recipe.base import Value


class KReciprocal(Value):
    """Re-ranking by k-reciprocal neighbours (Zhong et al. 2017); all queries of a draw are used together."""

    kind: Literal["k_reciprocal"] = "k_reciprocal"
    k1: int = Field(20, ge=1)
    """Number of nearest photos among which reciprocal neighbours are searched for."""
    k2: int = Field(6, ge=1)
    """Number of nearest photos, including the photo itself, whose neighbourhoods are averaged; 1 averages nothing."""
    lambda_: float = Field(0.3, ge=0, le=1, alias="lambda")
    """Weight of the original distance; 1 is no re-ranking, 0 the neighbours alone."""
    formula: Literal["paper", "code"] = "paper"
    """The paper's equations, or the authors' code, which most published numbers come from."""

    @property
    def words(self) -> str:
        return f"re-ranking k1={self.k1}, k2={self.k2}, lambda={self.lambda_:g}" + (
            ", the authors' code" if self.formula == "code" else ""
        )


class QueryExpansion(Value):
    """Average query expansion (Chum et al. 2007), with weights if alpha is over 0 (Radenovic et al. 2018)."""

    kind: Literal["query_expansion"] = "query_expansion"
    neighbours: int = Field(5, ge=1)
    """Number of nearest gallery photos that the query is averaged with."""
    alpha: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Each is weighted by its cosine to this power; 0 is the plain mean."""

    @property
    def words(self) -> str:
        return f"query expansion, {self.neighbours} nearest" + (f", alpha={self.alpha:g}" if self.alpha else "")


class GalleryExpansion(Value):
    """Database-side augmentation (Arandjelovic and Zisserman 2012): gallery photos are averaged with their nearest
    ones.
    """

    kind: Literal["gallery_expansion"] = "gallery_expansion"
    neighbours: int = Field(5, ge=1)
    """Number of nearest other gallery photos that each gallery photo is averaged with."""
    alpha: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Each is weighted by its cosine to this power; 0 is the plain mean."""

    @property
    def words(self) -> str:
        return f"gallery expansion, {self.neighbours} nearest" + (f", alpha={self.alpha:g}" if self.alpha else "")


Rerank = Annotated[KReciprocal | QueryExpansion | GalleryExpansion, Field(discriminator="kind")]
_EXAMPLES = "k1=20,k2=6,lambda=0.3 (and formula=code), expansion=5 or gallery-expansion=5 (and alpha=3)"
_COUNTS = {
    "expansion": "query_expansion",
    "gallery-expansion": "gallery_expansion",
    "gallery_expansion": "gallery_expansion",
}


def with_kinds(value: Any) -> Any:
    """One mapping or several, as a list; the default kind is `k_reciprocal`."""
    if value is None:
        return ()
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list | tuple):
        return items
    return [{"kind": "k_reciprocal", **item} if isinstance(item, dict) else item for item in items]


def read_rerank(text: str) -> Rerank:
    """`k1=20,k2=6`, `expansion=5,alpha=3` or `gallery-expansion=5`, as on a command line. Raises RecipeError."""
    pairs = [part.partition("=") for part in text.split(",")]
    keys = {key.strip(): value.strip() for key, _, value in pairs}
    if len(keys) < len(pairs) or not all(equals for _, equals, _ in pairs):
        raise RecipeError(f"--rerank {text}: write key=value, each key once, separated by commas, like {_EXAMPLES}")
    option = next((key for key in keys if key in _COUNTS), None)
    if option:
        keys = {"kind": _COUNTS[option], "neighbours": keys.pop(option), **keys}
    try:
        rerank: Rerank = TypeAdapter(Rerank).validate_python({"kind": "k_reciprocal", **keys})
    except ValidationError as error:
        problems = "; ".join(_complaint(problem, option) for problem in error.errors())
        raise RecipeError(f"--rerank {text}: {problems}; known: {_EXAMPLES}") from None
    return rerank


def _complaint(problem: Any, option: str | None) -> str:
    key = str(problem["loc"][-1]) if problem["loc"] else "kind"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    return f"{option if key == 'neighbours' else key} is {problem['input']!r}: {problem['msg']}"
