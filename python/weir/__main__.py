"""`python -m weir`."""

from weir._cli import main_entry

main_entry()
