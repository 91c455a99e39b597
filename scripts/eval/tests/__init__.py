"""Tests without a measurement. Run: `python3 -B -m unittest discover -s scripts/eval`."""
