"""BF16 -> FP8, as the release did it or more of it (section 6.2): row-wise scales, activations bounded.

    settings   Fp8Policy and POLICIES: which matrices, and the bound on activations (imports no torch)
    stream     a stored model, quantised while it is read;   fp8   quantize_model, save_fp8: one in memory
    report     what that saved and cost
    reading    a text read by one model, its hidden states kept on disk
    quality    FP8 beside BF16 on such a text, token by token

The layer itself is `weights/fp8.py`, because `weights/` must build it when it reads an FP8 folder.
Not here: INT4, static scales, calibration, kernels (`kernels/`), suites and reward models (`road/quality.py`).
"""
