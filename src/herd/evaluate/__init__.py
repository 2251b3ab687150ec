"""Suites of verified tasks, their statistics, and result files that other programs read."""
