"""The protocol imports no torch: other rooms and the command line use it without paying for it."""

import subprocess
import sys


def test_protocol_imports_no_torch():
    code = "import sys, herd.generate, herd.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
