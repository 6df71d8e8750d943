"""Free memory goes back to the system, so that a long run looks as flat as it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from infinitetalk_core.malloc_trim import trim_heap

ROOT = Path(__file__).parents[2]
# Many pieces, too small for glibc to take each from the system, freed but for the last: a heap that cannot shrink by
# itself.
CODE = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from infinitetalk_core.malloc_trim import trim_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = [c.malloc(100_000) for _ in range(1000)]
for block in blocks:
    c.memset(block, 1, 100_000)
for block in blocks[:-1]:
    c.free(block)
before = resident()
trim_heap()
print(before - resident())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps and gives back"
)
def test_what_was_freed_goes_back():
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(root=str(ROOT))], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 80_000_000


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_nothing_is_asked_for(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", None)
    trim_heap()


def test_a_c_library_without_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    trim_heap()
