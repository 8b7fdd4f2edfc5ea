"""The command line. Nothing is imported before `main`, so that errors of imports are reported in one line, too."""

import os
import sys


def main() -> None:
    """The `handreid` command; never returns. See `ending` for exit codes."""
    # Threads that spin while they wait make training ten times slower as soon as another process needs a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from handreid.cli import ending
        from handreid.cli.commands import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    sys.exit(ending.run(app))
