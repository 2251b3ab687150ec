"""A model folder made ready for others.

    lineage     where a model comes from: the stages and folders that made it, and foreign models among them
    agreement   which licence of Meta's binds it, and what that licence asks of a publication
    scores      its scores with their intervals
    energy      what making it took, measured or estimated
    facts       what the folder says: shape, formats, bytes
    header      the model card's header, which the hub reads
    card        the model card
    fp8         what the card says of a folder in FP8
    licences    how a licence stands in the card's header
    portable    files without this machine's paths
    bundle      the files to publish, with nothing of this machine in them

Imports no torch at import. Not here: the upload itself (`hub/upload`), which files a model has (`hub/select`).
"""
