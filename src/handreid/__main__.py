"""`python -m handreid`, the same as `handreid`."""

from handreid.cli import main

main()
