"""`python -m fasttcp` is the command `fasttcp`."""

import sys

from fasttcp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
