"""Make a talking video on this machine with a real ComfyUI, without downloading any model.

    python3 tools/demo.py           make the video and print its path
    python3 tools/demo.py --ui      then keep ComfyUI running, to be opened in a browser

First creates an environment and a ComfyUI (tools/host.py). Uses the small models of this repository (small_models/),
which animate drawn characters at 96 x 96 pixels. Every stage is the same as with the real models: with those in
ComfyUI's folders, the same workflows dub real people.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import host

WORKFLOWS = host.REPO / "workflows" / "api"
LARGER = 5  # scale factor: 96 pixels become 480
INSIDE = "--inside"  # argument of the second start, in the environment's Python


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    parser.add_argument("--ui", action="store_true", help="keep ComfyUI running and print its address")
    parser.add_argument("--workflow", default="talking_portrait", help=f"one of {', '.join(names)}")
    parser.add_argument("--cpu", action="store_true", help="do not use the graphics card")
    parser.add_argument("--timeout", type=float, default=1800.0, help="time limit in seconds")
    parser.add_argument(INSIDE, metavar="COMFYUI", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.inside:
        return run_demo(options)
    ready = host.prepare()
    # The rest needs packages of the environment, so it runs in the environment's Python.
    command = [str(ready.python), __file__, INSIDE, str(ready.comfyui), *sys.argv[1:]]
    if os.name == "posix":  # exec keeps this process, so that signals reach it and it stops the server
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.run(command, check=False).returncode


def run_demo(options: argparse.Namespace) -> int:
    """Start the server, run the workflow and report; with --ui wait for Ctrl+C."""
    from comfy_server import ComfyServer, RefusedError, ServerError, cuda_available

    from small_models import place_samples, place_trained_models, with_small_models

    base = host.DEMO / "base"
    place_trained_models(base / "models")
    place_samples(host.REPO / "samples", base / "input")
    workflow = with_small_models(json.loads((WORKFLOWS / f"{options.workflow}.json").read_text(encoding="utf-8")))
    python = Path(sys.executable)
    cpu = options.cpu or not cuda_available(python)
    print(f"[demo] starting ComfyUI ({'CPU' if cpu else 'GPU'})", flush=True)
    try:
        with ComfyServer(python, options.inside, base, pack=host.REPO, cpu=cpu) as server:
            video = make_video(server, workflow, options)
            if options.ui:
                keep_open(server)
    except (ServerError, RefusedError, TimeoutError) as error:
        print(f"[demo] {error}", file=sys.stderr)
        return 1
    if not options.ui:
        print("[demo] to see the graph in ComfyUI's own window: python3 tools/demo.py --ui")
    return 0 if video else 1


def make_video(server: Any, workflow: dict[str, Any], options: argparse.Namespace) -> Path | None:
    """Run the workflow and print each step; return the path of the video, None after an error."""
    print(f"[demo] running the workflow {options.workflow} on the sample picture and voice", flush=True)
    started = time.monotonic()
    result = server.run(workflow, options.timeout, Progress(workflow).show)
    if result.status != "success":
        print(f"[demo] {result.reason}", file=sys.stderr)
        return None
    videos = [server.path_of(file) for file in result.files() if file["filename"].endswith((".mp4", ".webm"))]
    if not videos:
        print("[demo] the workflow ended without a video", file=sys.stderr)
        return None
    print(f"[demo] done in {time.monotonic() - started:.1f} s")
    print(f"[demo] your video: {os.path.relpath(videos[-1])} ({describe(videos[-1])})")
    print(f"[demo] enlarged for viewing: {os.path.relpath(enlarged(videos[-1]))}")
    return videos[-1]


class Progress:
    """Prints the server's progress, one line for each new step."""

    def __init__(self, workflow: dict[str, Any]) -> None:
        self.workflow = workflow
        self.last = ""

    def show(self, message: Any) -> None:
        """Handle a message; for ComfyServer's on_message."""
        node = self.workflow.get(str(message.data.get("node")), {}).get("class_type", "")
        line = ""
        if message.type == "executing" and node:
            line = node
        elif message.type == "progress" and node:
            line = f"{node}: {message.data['value']:.0f}/{message.data['max']:.0f}"
        if line and line != self.last:
            print(f"[demo]   {line}", flush=True)
            self.last = line


def describe(video: Path) -> str:
    """Return a text with duration, picture size and audio of a video."""
    import av

    with av.open(str(video)) as file:
        picture = file.streams.video[0]
        frames = sum(1 for _ in file.decode(picture))
        rate = float(picture.average_rate or 25)
        sound = "with sound" if file.streams.audio else "without sound"
        size = f"{picture.width} x {picture.height}"
        return f"{frames / rate:.2f} s, {frames} frames at {rate:g}/s, {size}, {sound}"


def enlarged(video: Path) -> Path:
    """Write a copy beside the video, enlarged LARGER times, with the same audio, because players blur small videos."""
    import av

    copy = video.with_stem(f"{video.stem.rstrip('_')}_large")
    with av.open(str(video)) as small, av.open(str(copy), "w") as large:
        pictures, sounds = small.streams.video[0], small.streams.audio
        stream = large.add_stream("libx264", rate=pictures.average_rate, options={"crf": "18"})
        stream.width, stream.height = LARGER * pictures.width, LARGER * pictures.height
        sound = large.add_stream_from_template(sounds[0]) if sounds else None
        for packet in small.demux(pictures, *sounds[:1]):
            if packet.stream is pictures:
                for frame in packet.decode():
                    shown = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="LANCZOS")
                    large.mux(stream.encode(shown))
            elif packet.dts is not None:
                packet.stream = sound
                large.mux(packet)
        large.mux(stream.encode(None))
    return copy


def keep_open(server: Any) -> None:
    """Wait for Ctrl+C, or for the server's end."""
    print(f"[demo] open {server.url} in a browser; the workflows are under Templates > InfiniteTalk lip sync")
    print("[demo] in the loaders choose the files whose names begin with small_ and bypass the LoRA; then")
    for node, values in settings_in_words().items():
        print(f"[demo]   {node}: {values}")
    print("[demo] Ctrl+C ends ComfyUI", flush=True)
    try:
        while server.alive():
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()


def settings_in_words() -> dict[str, str]:
    """Return the settings that the small models need, by node, as text."""
    from small_models import TRAINED

    return {
        node.removeprefix("InfiniteTalk"): ", ".join(f"{name} {value}" for name, value in values.items())
        for node, values in TRAINED.settings.items()
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with the demo, as on Ctrl+C
    try:
        sys.exit(main())
    except host.SetupError as error:
        sys.exit(f"[setup] {error}")
    except KeyboardInterrupt:
        sys.exit(130)
