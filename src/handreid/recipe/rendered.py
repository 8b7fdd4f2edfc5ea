"""Photos that a recipe renders itself."""

from pydantic import Field

from handreid.recipe.base import Seed, Value


class Rendered(Value):
    """Photos of people who do not exist, as `handreid data render` draws them with the same arguments."""

    identities: int = Field(ge=1, le=1_000_000)
    """Number of people."""
    photos: int = Field(8, ge=1, le=10_000)
    """Photos of each person, spread over the four views."""
    size: int = Field(128, ge=32, le=4096)
    """Side of a photo in pixels."""
    seed: Seed = 0
    """Random seed of people and photos. People of two seeds are different people."""
