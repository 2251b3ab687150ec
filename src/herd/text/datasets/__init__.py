"""Datasets as people share them: files of rows in, conversations or preference pairs out. Imports no torch.

read     rows of JSON lines, JSON, Parquet, CSV and TSV, of a file or of a folder of them
layouts  what rows can look like, and how each is recognised by its columns
turns    the small ways in which messages are spelled (from/value, Human:/Assistant:, ...)
marks    signs of chat templates inside texts
refusals what a dataset that fits no layout probably is
load     a whole dataset: recognised once, shown, and refused with a sample row when it is nothing known
"""

from herd.text.datasets.load import Dataset, load_dialogues, load_pairs, load_prompts
from herd.text.datasets.turns import Pair

__all__ = ["Dataset", "Pair", "load_dialogues", "load_pairs", "load_prompts"]
