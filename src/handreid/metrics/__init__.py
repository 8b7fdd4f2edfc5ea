"""Arrays in, numbers out: ranking, intervals, re-ranking, separation.

`handreid.metrics` is this package and, called, the function `metrics` of `summary.py`: a package takes its name in
`handreid` as soon as any of its modules is imported, so the function cannot have the name for itself.
"""

import sys
from inspect import signature
from types import ModuleType

from handreid.metrics.summary import metrics as _metrics


class _Package(ModuleType):
    __call__ = staticmethod(_metrics)
    __signature__ = signature(_metrics)


sys.modules[__name__].__class__ = _Package
