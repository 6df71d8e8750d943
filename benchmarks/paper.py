"""The paper's claims at small scale: the table of its ablations on drawn people whose truth is known.

    python benchmarks/paper.py --plan              what would be done, and how long it would take here
    python benchmarks/paper.py                     everything that is not done yet; then the report
    python benchmarks/paper.py --only policies camera
    python benchmarks/paper.py --quick             a small version of it all, in a folder of its own
    python benchmarks/paper.py --report            tables into RESULTS.md and plots, from the rows that are there

Needs the packages of the tests and the small models. A row is one video of an unseen character, voice and text; it is
saved when it is made, so an interrupted command goes on where it was. --threads N makes N rows at a time, each on one
thread, which gets more done than one row on N threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [path for path in (str(REPO), str(REPO / "tools")) if path not in sys.path]

from run_comfyui import cure_torchvision  # noqa: E402

cure_torchvision()  # transformers imports torchvision, which need not fit

from benchmarks.paper_run import main  # noqa: E402

if __name__ == "__main__":
    main(about=__doc__)
