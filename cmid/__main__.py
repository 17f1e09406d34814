"""`python -m cmid` is `cmid`."""

import sys

from cmid.cli import main

if __name__ == "__main__":
    sys.exit(main())
