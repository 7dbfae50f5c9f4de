"""Runs a program that dies with its parent: `python -I -S bound.py PARENT_PID PROGRAM ARGUMENT...`.

A script of its own rather than a `preexec_fn`, because running Python between fork and exec is not safe in a process
that has threads. Linux only (prctl(2), PR_SET_PDEATHSIG, which survives exec); elsewhere the program is run unbound.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above: nobody will tell us any more
            sys.exit(1)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
