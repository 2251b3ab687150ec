"""The Llama 3.1 network on one device, in pure torch; it reads like section 3.2 of the paper.

    config      the shape of a model and what it costs (imports no torch)
    rope        rotary positions with the 3.1 frequency scaling
    attention   grouped-query attention, causal, per document, or over a cache;   blocked   its CPU path for documents
    block       RMSNorm, SwiGLU and the layer they make
    model       the network;   init     its random start;   cache     keys and values of the past
    loss        cross-entropy and log-probabilities that never hold all logits
    fused       the elementwise hot paths;   reference     the same, said plainly, for the tests

Not here: weights on disk and FP8 layers (`weights/`), training, sampling, and any form of parallelism (applied from
outside).
"""
