"""Starts a worker that runs somebody's `.tflite`, within limits: the first thing that happens in its process.

Run by file path, `python -P confined.py LIMITS WHAT ARGUMENTS..`, so it imports nothing of this package. LIMITS is a
JSON object, `{"memory": bytes or null, "file": bytes, "network": false}`; WHAT is a program's path, or `-m` and a
module's name. The worker goes on in this very process: nothing is left in between, and no thread is started. What
could not be limited is left in the environment variable AMC_LATENCY_UNLIMITED, in words.

A namespace keeps the network away where the system lets this user make one. A filter of system calls would do so
everywhere, but on some kernels it turns on what slows every load and store: it would change what is measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import runpy
import shutil
import sys

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # CLONE_NEWUSER and CLONE_NEWNET in <sched.h>


def main() -> None:
    """Limit this process, and become the worker."""
    limits = json.loads(sys.argv[1])
    problems = [*limited(limits["memory"], limits["file"])]
    if not limits["network"] and not without_network():
        problems.append("it may use the network")
    os.environ["AMC_LATENCY_UNLIMITED"] = "; ".join(problems)
    try:
        if sys.argv[2] == "-m":
            name = sys.argv[3]
            sys.argv = sys.argv[3:]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            path = sys.argv[2]
            sys.argv = sys.argv[2:]
            runpy.run_path(path, run_name="__main__")
    finally:
        # Where the parent was killed, nobody else removes it; and nothing else than what the parent made is removed.
        folder = os.environ.get("AMC_LATENCY_WORKER_FOLDER", "")
        with contextlib.suppress(OSError):
            if os.path.basename(folder).startswith("amc-latency-worker-") and os.path.samefile(folder, "."):
                os.chdir("/")
                shutil.rmtree(folder, ignore_errors=True)


def limited(memory: int | None, file: int) -> list[str]:
    """Set limits for good; what could not be set, in words. No core dumps: they hold the user's weights."""
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": file}
    if memory is not None:
        # What it can write, not its addresses: LiteRT and thread stacks reserve far more than they use.
        wanted["RLIMIT_DATA"] = memory
    problems = []
    for name, most in wanted.items():
        number = getattr(resource, name, None)
        try:
            if number is None:
                raise ValueError(name)
            _, hard = resource.getrlimit(number)
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(number, (most, most))
        except (OSError, ValueError):
            problems.append(f"{name} can't be set")
    return problems


def without_network() -> bool:
    """Leave the network behind; False where the system forbids it."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (AttributeError, OSError):  # not Linux
        return False
    # Root may do so as it is; others need to be root in a world of their own first.
    return unshare(_NEW_NET) == 0 or unshare(_NEW_USER | _NEW_NET) == 0


if __name__ == "__main__":
    main()
