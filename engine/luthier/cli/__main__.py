"""`python -m luthier.cli`: the command line where the console script is not on the PATH."""

from luthier.cli import main

main()
