"""Kills gateway workers under load, 200 times, and compares the ledger with the provider's own books:
`python bench/crash.py [KILLS]`. A few kills are in `make test`: tests/app/test_crashes.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    environ = {**os.environ, "PENSTOCK_KILLS": sys.argv[1] if len(sys.argv) > 1 else "200"}
    command = [sys.executable, "-m", "pytest", "tests/app/test_crashes.py", "-q", "-s"]
    sys.exit(subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode)
