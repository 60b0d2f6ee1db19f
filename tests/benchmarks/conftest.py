"""Lets the tests of benchmarks import them as their scripts do, from their folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
