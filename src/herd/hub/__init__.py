"""Files from and to the Hugging Face Hub, or a mirror that speaks its protocol (HF_ENDPOINT).

    client      Hub: where it is and who asks; its answers as errors that say what to do
    listing     the files of a repository at one commit, with their checksums
    download    one file: resumable, verified, progress
    select      which files of a model repository are wanted
    standing    what an earlier pull left in the place of a new one
    pull        a repository as a model folder, whole or not at all
    kept        the same from the Hub's cache on this machine, when offline
    upload      a folder's files as one commit

The package `huggingface_hub` is the extra `hub` and is imported inside functions. Not here: model cards and licences
(`release/`), datasets as documents (`road/`). Imports no torch.
"""
