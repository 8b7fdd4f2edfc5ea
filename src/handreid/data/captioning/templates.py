"""Wordings of a user's own for a column, in place of ours: `under {value} light`."""

from collections.abc import Sequence

from handreid.data.captioning.facts import Fact
from handreid.data.captioning.values import Value, says_none, value_words
from handreid.data.tables import short
from handreid.errors import ManifestError

_PLACE = "{value}"


def template_problem(template: str) -> str | None:
    """What is wrong with a template; None if nothing is."""
    if not template.strip():
        return "is empty"
    if template.count(_PLACE) > 1 or "{" in template.replace(_PLACE, "") or "}" in template.replace(_PLACE, ""):
        return f"may have one place, {_PLACE}, and no other braces"
    return None


def template_fact(templates: Sequence[str], value: Value) -> Fact | None:
    """The fact in the words of the templates; those without a place are said where the value is not no, none or 0."""
    texts = [text for text in templates if _PLACE in text or not says_none(value)]
    forms = tuple(" ".join(text.replace(_PLACE, value_words(value)).split()) for text in texts)
    return Fact("phrase", forms) if forms else None


def parse_template(text: str) -> tuple[str, str]:
    """Column and template of `COLUMN=TEXT`. Raises ManifestError."""
    column, sign, template = text.partition("=")
    problem = template_problem(template) if sign and column.strip() else "must be COLUMN=TEXT"
    if problem:
        raise ManifestError(f"template {short(text)} {problem}; for example 'lighting=under {_PLACE} light'")
    return column.strip(), template.strip()
