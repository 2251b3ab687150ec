"""What share of a datasheet is reached: the only numbers of the simulation that are not counted, and the same for
every model, layout, GPU and published row. A measured machine (`Gpu.measured`) takes none of them.

They were chosen once, by what is known about kernels and by looking at all published rows together; docs/planning.md
has the rows and how far off each is.
"""

from __future__ import annotations

# Of the peak, by large products in a run of hours: numbers that are not zeros draw power until the clock falls. Best
# cases of minutes reach 0.80 on an H100 in BF16 and 0.72 in FP8 (ml-engineering's tables of achievable FLOPS, from
# memory); both are taken down alike.
MATRIX_SHARE, FP8_SHARE = 0.60, 0.54
# Of the power limit, what a GPU draws however slow its clock: memory, links, leakage (about 100 W of an H100's 700,
# from memory).
STANDING_POWER = 1 / 7
# Columns that a tile could have gone through while it is started and written out: short inner dimensions pay for it.
RAMP = 256
# A product is cut into tiles that are dealt to the multiprocessors, wave by wave; the last wave is rarely full. cuBLAS
# takes 128 x 256 for large products on Hopper.
TILE = (128, 256)
# Of the memory's rate, by kernels that read and write once (STREAM-like kernels reach 0.90 to 0.93; fused ones less).
MEMORY_SHARE = 0.85
# Of NVLink, by NCCL's rings with 8 GPUs and large messages (all_gather_perf on an H100 node: about 360 of 450 GB/s,
# from memory), and of network cards (about the same part of 400 Gb/s).
LINK_SHARE, NETWORK_SHARE = 0.80, 0.80
# Multiprocessors that a collective beside a computation takes from it: 16 channels of NCCL.
CHANNELS = 16
# Of the tensor collectives, what asynchronous tensor parallelism hides behind the products that they feed.
ASYNC_TP_HIDDEN = 0.5
# Seconds that the host takes to start a kernel: shorter kernels wait for it (from memory, through torch and CUDA).
LAUNCH_SECONDS = 4e-6
