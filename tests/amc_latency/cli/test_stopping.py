"""A signal at any moment: one line, the exit code 128 + its number, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
START = """
import gc, os, signal, sys, threading, time, weakref
from amc_latency.cli.stopping import stop_by_signals
NUMBER = int(sys.argv.pop(1))
stop_by_signals()
def hit():
    os.kill(os.getpid(), NUMBER)
    for _ in range(1000):
        pass
class Finaliser:
    def __del__(self):
        hit()
def wait():
    # Work that could go on for long.
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.001)
"""
PLACES = {
    "plain": "hit()\nwait()",
    "finaliser": "Finaliser()\nwait()",
    "cycle": "a = Finaliser()\na.me = a\ndel a\ngc.collect()\nwait()",
    "weak reference": "a = Finaliser.__new__(type('A', (), {}))\nr = weakref.ref(a, lambda _: hit())\ndel a\nwait()",
    "weak dictionary": (
        "class Key: pass\nd = weakref.WeakKeyDictionary()\nk = Key()\nweakref.finalize(k, hit)\nd[k] = 1\ndel k\nwait()"
    ),
    "collector": (
        "def seen(phase, _):\n    gc.callbacks.remove(seen)\n    hit()\ngc.callbacks.append(seen)\ngc.collect()\nwait()"
    ),
    "generator": "def g():\n    try:\n        yield\n    finally:\n        hit()\nx = g()\nnext(x)\ndel x\nwait()",
    "cleaning up": "try:\n    hit()\nfinally:\n    print('cleaned')",
    "twice": "try:\n    hit()\nfinally:\n    hit()",
    "several finalisers": "for _ in range(3):\n    Finaliser()\nwait()",
    "import": (
        "import importlib.abc, importlib.util\n"
        "class Loader(importlib.abc.Loader):\n    def exec_module(self, module):\n"
        "        try:\n            hit()\n            time.sleep(0.1)\n"
        "        except SystemExit:\n            print('raised')\n"
        "class Finder(importlib.abc.MetaPathFinder):\n    def find_spec(self, name, path, target=None):\n"
        "        return importlib.util.spec_from_loader(name, Loader()) if name == 'native' else None\n"
        "sys.meta_path.insert(0, Finder())\nimport native\nwait()"
    ),
    "full output": "sys.stderr.write('x' * 10)\nhit()",
}


def ended(code: str, number: int, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + code, str(number), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("place", PLACES)
def test_the_signal_ends_the_program_wherever_it_is(place: str) -> None:
    # Each signal is somebody's: they are handled alike.
    number = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP][list(PLACES).index(place) % 3]
    done = ended(PLACES[place], number)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.removeprefix("x" * 10) == "stopped\n"
    assert done.stdout == ("cleaned\n" if place == "cleaning up" else "")


def test_what_else_cannot_be_raised_is_still_said() -> None:
    done = ended("class A:\n    def __del__(self):\n        raise ValueError('kept')\nA()\nhit()", signal.SIGTERM)
    assert done.returncode == 143
    assert "Exception ignored" in done.stderr
    assert "ValueError: kept" in done.stderr


def test_a_command_that_goes_on_says_so() -> None:
    for command in ("profile", "search", "train", "finetune"):
        assert "the same command goes on from here" in ended("hit()", signal.SIGTERM, (command,)).stderr
    assert ended("hit()", signal.SIGTERM, ("bench",)).stderr == "stopped\n"
