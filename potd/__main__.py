"""`python -m potd` is `potd`."""

from potd.cli import main

main(prog_name="potd")
