"""Every op with the attribute values that the exports of the five families hold, and neighbouring ones.

Each file of ``cases/`` has ``CASES``; a new op brings one of its own.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from _single_op import Case
from _single_op import act as act
from _single_op import case as case
from _single_op import const as const
from _single_op import ints as ints

FILES = sorted((Path(__file__).parent / "cases").glob("*.py"))
CASES: list[Case] = [case for path in FILES for case in runpy.run_path(str(path))["CASES"]]
