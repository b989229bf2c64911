"""`python -m hgat`: the command `hgat`, where it is not on the path."""

import sys

from hgat.cli import main

if __name__ == "__main__":
    sys.exit(main())
