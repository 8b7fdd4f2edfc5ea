"""`python -m handreid`, the same as `handreid`."""

from handreid.cli import main

if __name__ == "__main__":
    main()
