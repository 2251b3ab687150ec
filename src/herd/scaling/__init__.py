"""From small runs to a prediction of the large one. Imports no torch.

    ladder       which small runs to make
    records      what they taught
    fits         the law to trust, chosen by its error on the largest budget
    parametric   L(N, D) of all runs at once;   isoflop   the paper's parabolas;   law   what both can be asked
    forecast     benchmark accuracy in two steps
    curves       the isoFLOP picture as points
    solver       robust least squares with priors, many problems at once

Not here: running the ladder, and planning clusters (a later issue).
"""
