"""Post-training as rounds: candidates, judgement, quality control, SFT, DPO, averaging, evaluation, gate; and teaching.

    settings     RoundSettings, TeachSettings and their parts (no torch)
    candidates   k replies a prompt through any Generator        judge      verifiers first, then the reward model
    quality      rules and duplicates, every drop counted        select     best of k, preference pairs, the mix
    collect      these four in a row, kept on disk               training   SFT, reward, DPO on the one loop
    average      weighted means of models                        finish     the choice among mixes, and the gate
    round        one round, or several                           teach      a large model's answers for a small one

The source is section 4 of the paper. Not here: the loop and the objectives (`train/`), sampling (`generate/`).
"""
