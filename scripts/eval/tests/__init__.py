"""Tests of what can be tested without measuring: `python3 -B -m unittest discover -s scripts/eval`."""
