"""`python -m cli` is the `tpt` command."""

from cli.main import main

main(prog_name="tpt")
