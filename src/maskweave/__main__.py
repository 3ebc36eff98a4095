"""`python -m maskweave` is the command `maskweave`: for torchrun, and where the command is not on the path."""

import sys

from maskweave.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
