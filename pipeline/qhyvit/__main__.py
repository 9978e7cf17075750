"""``python -m qhyvit``."""

from qhyvit.cli import main

main()
