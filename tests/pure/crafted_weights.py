"""Weights files that people may load by mistake, or that somebody made to do harm, and what our loaders say to each.

    python -m tests.pure.crafted_weights FOLDER                 every file of the table
    python -m tests.pure.crafted_weights FOLDER --named TEXT    those with the text in their names
    python -m tests.pure.crafted_weights FOLDER FROM TO         mutations of right files, by seed

Each file is written into a folder of its own in FOLDER, loaded in a process of its own, and removed. Writes a line of
JSON for each: the fields of `Answer`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.run_comfyui import make_torchvision_importable

if __name__ == "__main__":  # in tests, tests/conftest.py has called it
    make_torchvision_importable()

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.errors import InputError, RunError
from infinitetalk_core.standalone import load_model, load_uni3c, load_vae
from tests.support.crafted import Crafted
from tests.support.crafted_encoders import ENCODERS
from tests.support.crafted_gguf import GGUFS
from tests.support.crafted_headers import HEADERS
from tests.support.crafted_models import MODELS, NO_WEIGHTS
from tests.support.mutated_weights import mutated
from tests.support.weight_files import right_bytes

CRAFTED = (*HEADERS, *MODELS, *NO_WEIGHTS, *GGUFS, *ENCODERS)
# What an artist should not have to read.
PYTHON_WORDS = re.compile(
    r"Traceback|[a-z]Error|object has no|codec|NoneType|<class|torch\.Size|not subscriptable|to unpack|0x[0-9a-f]{6}"
)
MOST_LETTERS = 600
MOST_SECONDS = 10  # for a file


@dataclass(frozen=True)
class Answer:
    """What a loader did with a file.

    outcome: `answered` (in one sentence of ours), `read`, `in Python's words`, `hung` or `crashed`. seconds: of CPU;
    mb: memory that the loader took at its peak.
    """

    name: str
    outcome: str
    message: str = ""
    seconds: float = 0.0
    mb: int = 0


def loaders(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Return the loaders by kind of file. folder: for right files of the other model, which some need."""
    base, talk = folder / "right_base.safetensors", folder / "right_talk.safetensors"
    base.write_bytes(right_bytes("base"))
    talk.write_bytes(right_bytes("infinitetalk"))
    return {
        "infinitetalk": lambda path: load_model(base, path),
        "base": lambda path: load_model(path, talk),
        "uni3c": load_uni3c,
        "encoder": load_speech_encoder,
        "vae": load_vae,
    }


def answer(name: str, load: Callable[[Path], Any], path: Path) -> Answer:
    """Load a file and say what came of it."""
    begin, memory = time.process_time(), peak_mb()
    outcome, message = "read", ""
    try:
        load(path)
    except (InputError, RunError) as error:
        message = str(error)
        plain = len(message) <= MOST_LETTERS and message.isprintable() and not PYTHON_WORDS.search(message)
        outcome = "answered" if plain and ". " not in message else "in Python's words"
    except Exception as error:
        outcome, message = "in Python's words", f"{type(error).__name__}: {error}"
    return Answer(name, outcome, message[:MOST_LETTERS], time.process_time() - begin, peak_mb() - memory)


def peak_mb() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def answer_of_process(name: str, load: Callable[[Path], Any], path: Path) -> Answer:
    """Load a file in a fork of this process, which a crash ends and a hang does not keep."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(MOST_SECONDS)  # a pipe that nobody writes to takes no CPU time
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        os.write(writing, json.dumps(asdict(answer(name, load, path))).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said:
        return Answer(**json.loads(said))
    return Answer(
        name, "hung" if status in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM) else "crashed", f"status {status}"
    )


def answers(
    files: Iterable[Crafted], folder: Path, answer_to: Callable[..., Answer] = answer_of_process
) -> Iterator[Answer]:
    """Write each file, load it and remove it. answer_to: `answer_of_process`, or `answer` for less time."""
    load = loaders(folder)
    for file in files:
        place = Path(tempfile.mkdtemp(dir=folder))
        yield answer_to(file.name, load[file.kind], file.write(place))
        shutil.rmtree(place)


def main() -> None:
    """See the module's docstring."""
    folder, *chosen = sys.argv[1:]
    files: Iterable[Crafted] = CRAFTED
    if chosen[:1] == ["--named"]:
        files = [file for file in CRAFTED if chosen[1] in file.name]
    elif chosen:
        files = map(mutated, range(*map(int, chosen)))
    for found in answers(files, Path(folder)):
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
