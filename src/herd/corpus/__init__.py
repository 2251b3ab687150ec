"""Documents -> clean corpus -> token shards. No torch.

    documents.py    what a document is; reading a user's folder (formats.py: file by file; extract.py: HTML)
    stdlib.py       the text every machine has: Python's own documentation and source
    pipeline.py     curate(): the steps in order, every removal with its reason; settings.py sets it
    language.py (identify.py) heuristics.py repetition.py pii.py duplicates.py minhash.py lines.py    the steps
    mix.py shards.py tokenize.py    weights by source, token files with lineage
    words.py ngrams.py    words and their hashes in every script; proof that two sets of texts are disjoint

The corpus is held in memory: this first version serves corpora of some hundred megabytes. Web pages by the
terabyte (WARC, spilling to disk, classifiers) are not covered yet.
"""
