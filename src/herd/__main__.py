"""`python -m herd`, which torchrun starts: torchrun --nproc-per-node 4 -m herd train ..."""

import sys

from herd.cli import main

sys.exit(main())
