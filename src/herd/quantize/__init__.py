"""BF16 -> FP8, as the release did it: feed-forward weights and activations, row-wise scales, ends kept (section 6.2).

    settings   Fp8Policy: which layers, and the bound on activations (imports no torch)
    fp8        quantize_model, save_fp8;   report   what it saved and what it cost

The layer itself is `weights/fp8.py`, because `weights/` must build it when it reads an FP8 folder.
Not here: INT4, static scales, calibration, FP8 kernels for GPUs.
"""
