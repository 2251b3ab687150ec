"""Documents -> clean corpus -> token shards. No torch.

read/           whatever a user has, as documents and verdicts on what is none: texts, JSON lines, tables, archives
extract/        HTML to main text
pipeline.py     curate(): the steps in order, every removal with its reason; settings.py sets it, step.py says what
                a step is, report.py what is counted
language.py (identify.py) heuristics.py running.py repetition.py pii.py    steps that judge a document by itself
duplicates.py minhash.py lines.py    steps that must see the whole corpus
engine/         steps over units of documents through the disk: resumed after a kill, with bounded memory, in one
                process or on a cluster; lineage.py goes back from a token or a URL
quality/        classifiers that are trained, and the steps that ask them
mix.py shards.py tokenize.py    weights by source, token files with lineage
streams.py streamed.py blocks.py remote.py    what lies elsewhere, range by range
stdlib.py       the text every machine has: Python's own documentation and source
words.py ngrams.py contamination.py    words and their hashes in every script; what two sets of texts share
chance.py arrays.py    choices by a name alone; arrays kept in one file
"""
