"""The engine of curation: steps over units of documents, through the disk, with bounded memory.

    job.py         one curation as a value: source, steps, folders, fingerprints
    passes.py      what is done with a unit: mark (judge and note), finish (apply and write)
    notes.py       notes of steps that must see the whole corpus, sorted on disk, read in buckets
    decisions.py   what they decided, asked for by document
    workers.py     units in this process, in several, as a dataframe (Daft) here or on a Ray cluster
    run.py         all of it in order; fates.py files.py    a document's way, and the files
    lineage.py     from a URL, an id or a token back to the document and its verdicts

Memory: a worker holds a segment (20,000 documents or 64 million characters) and its notes; a decision holds a bucket
of notes, which `memory` bounds, one byte for each document, and about 100 for each document that has near-duplicates.
"""
