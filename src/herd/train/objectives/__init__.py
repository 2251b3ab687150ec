"""One file for each way to train; what they share is in `terms.py`."""
