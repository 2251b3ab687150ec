"""What the command line runs: one file for each command; `herd.cli` holds the table. Heavy imports stay inside."""
