"""``python -m qhyvit_device``."""

from qhyvit_device.cli import main

raise SystemExit(main())
