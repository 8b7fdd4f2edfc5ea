"""The command line. Nothing is imported before `main`, so that whatever goes wrong is told in a line."""

import os
import sys


def main() -> None:
    """What the `handreid` command runs; never returns. See `ending` for how it ends."""
    # Threads that spin while they wait make training ten times slower as soon as another process wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from handreid.cli import ending
        from handreid.cli.commands import app
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)
    sys.exit(ending.run(app))
