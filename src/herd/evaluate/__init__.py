"""Suites of verified tasks, their statistics, and result files that other programs read. Imports no torch.

    statistics   intervals, macro averages, paired tests, shifts of distributions
    suite        prompts in, replies verified, scores by capability and language
    compare      two models on the same items
    harness      results in lm-evaluation-harness's layout, out and in
    likelihood   multiple choice by log-likelihood

Not here: the bridge to the harness's own tasks, contamination, human evaluation (later issues).
"""
