"""`python -m captum_sgcampp` is the command `captum-sgcampp`."""

import sys

from captum_sgcampp.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
