"""Reproduce the paper's ablations at small scale, on drawn people with known ground truth.

    python benchmarks/paper.py --plan              print the missing rows and the estimated time on this machine
    python benchmarks/paper.py                     make the missing rows, then the report
    python benchmarks/paper.py --only policies camera
    python benchmarks/paper.py --quick             a small version of all experiments, in a separate folder
    python benchmarks/paper.py --report            write tables into RESULTS.md and plots, from the existing rows

Needs the packages of the tests and the small models. A row is one video of an unseen character, voice and text; it is
saved when it is made, so an interrupted command can be resumed. --threads N makes N rows at a time, each on one thread,
which is faster in all than one row on N threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(REPO), str(REPO / "tools")) if path not in sys.path]

from run_comfyui import make_torchvision_importable  # noqa: E402

make_torchvision_importable()  # transformers imports torchvision, whose build may not match PyTorch's

from benchmarks.paper_run import main  # noqa: E402

if __name__ == "__main__":
    main(about=__doc__)
