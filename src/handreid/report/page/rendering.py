"""The page from its template: everything in one file, with text from outside escaped."""

import base64
import gzip
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from handreid import __version__
from handreid.report.page.data_card import short_command

_TEMPLATES = files("handreid.report.page") / "templates"
_SECTIONS = {
    "done": "What was done",
    "sweep": "The sweep",
    "seeds": "Over seeds",
    "results": "Results",
    "ladder": "The ladder",
    "curve": "Match curves",
    "training": "Training",
    "separation": "Compactness",
    "numbers": "More numbers",
    "matrix": "Across views",
    "rankings": "Rankings",
    "where": "Map of photos",
    "looks": "Saliency maps",
    "confusions": "Confusions",
    "data-card": "Data card",
    "environment": "Environment",
}
# sections that may be missing, with the key of their content; the others are always there
_OPTIONAL = {
    "sweep": "sweep",
    "seeds": "seeds",
    "results": "table",
    "ladder": "ladder",
    "curve": "cmc",
    "training": "training",
    "separation": "separations",
    "numbers": "sections",
    "matrix": "matrices",
    "rankings": "strips",
    "where": "map",
    "looks": "looks",
    "confusions": "mixed",
}


def rendered(content: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The page as HTML. `content` fills the template, which omits empty sections; `data` is for its script."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sections = dict.fromkeys(_OPTIONAL.values()) | dict(content)
    return environment.from_string(
        _read("report.html.j2")
    ).render(
        **sections,
        contents=[
            (name, heading) for name, heading in _SECTIONS.items() if name not in _OPTIONAL or sections[_OPTIONAL[name]]
        ],
        css=Markup(_read("report.css")),  # noqa: S704 - our own files
        js=Markup(_read("report.js")),  # noqa: S704
        data=Markup(_script_safe(data)),  # noqa: S704 - see _script_safe
        plotly=Markup(_packed_plotly()),  # noqa: S704 - base64
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=short_command([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _script_safe(content: Any) -> str:
    """JSON that cannot end the script element that holds it, whatever the names in it."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
