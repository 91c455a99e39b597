"""Verdicts and predicted gains against labels and against the same work in processes."""
