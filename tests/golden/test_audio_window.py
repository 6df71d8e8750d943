"""The plan's whole numbers equal those traced through the reference, apart from its known bugs."""

import re

from infinitetalk_core.audio.windows import window_indices
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings, choose_references


def comparable(row: dict) -> bool:
    """The reference refuses speech that fits one chunk and gets the length of unequal speakers wrong."""
    return "error" not in row and len(set(row["audio_lens"])) == 1


def test_every_chunk_of_every_case(golden):
    case = golden("audio_window")
    rows = [r for r in case.config["cases"] if comparable(r)]
    assert rows
    # What the case adds to the indices of the second speaker.
    speaker_offset = int(re.search(r"second speaker offset \+(\d+)", case.config["semantics"])[1])
    for row in rows:
        plan = plan_chunks(row["total_output_frames"], row["frame_num"], row["motion_frame"])
        assert len(plan) == row["n_chunks"]
        indices = case[f"outputs/{row['id']}/audio_index"].tolist()
        origin = []
        for chunk, want in zip(plan, row["chunks"], strict=True):
            assert (chunk.start, chunk.start + chunk.length) == (want["audio_start"], want["audio_end"])
            origin += [chunk.index] * chunk.keep
            first, last = want["decoded_frame_range"]
            assert (chunk.new.start, chunk.new.stop) == (first, last + 1)
            for speaker, available in enumerate(row["audio_lens"]):
                traced = indices[chunk.index][speaker]
                got = window_indices(chunk.start, chunk.length, available, len(traced[0]))
                assert got == [[i % speaker_offset for i in window] for window in traced]
            if row["source"] == "video":
                (choice,) = choose_references([chunk], ReferenceSettings(Policy.CHUNK_START), row["video_len"])
                assert choice.frames == (want["source_frame_used"],)
        assert len(origin) == row["total_output_frames"]
