"""Groups of pictures: where they begin, and that a file made of them is like one stream."""

from __future__ import annotations

from itertools import pairwise

import av
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.joins import as_delivered, as_one_stream, moving_picture
from infinitetalk_core.chunks.groups import GROUP_FRAMES, JOIN_MARGIN, plan_groups
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.redo import AfterRedo
from infinitetalk_core.chunks.reference import PlannedChunk, ReferenceChoice
from infinitetalk_core.runs.tasks import plan_group_tasks, plan_tasks
from infinitetalk_core.video.format import Codec, VideoFormat
from infinitetalk_core.video.segment import decode_lossless, encode_lossless, to_pictures


@given(
    total=st.integers(1, 2000),
    shape=st.sampled_from([(81, 9), (13, 5), (29, 5), (401, 9), (5, 1)]),
    cuts=st.sets(st.integers(1, 1999), max_size=4).map(sorted),
)
def test_groups_cover_the_video_and_begin_away_from_joins(total, shape, cuts):
    chunks = plan_chunks(total, *shape, [cut for cut in cuts if cut < total])
    groups = plan_groups(chunks)
    assert [g.index for g in groups] == list(range(len(groups)))
    assert groups[0].start == 0 and groups[-1].stop == total
    assert all(a.stop == b.start for a, b in pairwise(groups))
    starts = {chunk.first: chunk for chunk in chunks if chunk.context == 0}
    assert set(starts) <= {group.start for group in groups}, "a shot begins with a key frame"
    joins = [chunk.first for chunk in chunks if chunk.context]
    for group in groups:
        assert 0 < group.stop - group.start <= GROUP_FRAMES + JOIN_MARGIN
        if group.start in starts:
            continue
        near = min((abs(group.start - join) for join in joins), default=JOIN_MARGIN)
        assert near >= min(JOIN_MARGIN, (shape[0] - shape[1]) // 2, min(chunk.keep for chunk in chunks) // 2)


def test_each_group_knows_the_chunks_of_its_frames():
    plan = [PlannedChunk(chunk, ReferenceChoice((0,)), 0) for chunk in plan_chunks(700, 81, 9, [300])]
    tasks = plan_tasks(plan, {}, AfterRedo.CONTINUE)
    for group in plan_group_tasks(tasks):
        inside = [task for task in tasks if group.group.overlaps(task.chunk.first, task.chunk.stop)]
        assert list(group.tasks) == inside and inside


@pytest.mark.parametrize("pixels", [VideoFormat(), VideoFormat(bits=10), VideoFormat(Codec.LOSSLESS)], ids=str)
def test_stored_frames_are_the_ones_that_were_given(pixels):
    pictures = to_pictures(torch.rand(7, 34, 50, 3), pixels)
    restored = decode_lossless(encode_lossless(pictures))
    assert restored is not None and len(restored) == 7
    for one, other in zip(pictures, restored, strict=True):
        assert rows(one) == rows(other)
    assert not decode_lossless(b"") and not decode_lossless(encode_lossless(pictures)[:300])


def rows(picture: av.VideoFrame) -> list[bytes]:
    """The rows of all planes, without what is behind them in memory."""
    size = 2 if "10le" in picture.format.name else 1
    return [
        bytes(plane)[row * plane.line_size :][: plane.width * size]
        for plane in picture.planes
        for row in range(plane.height)
    ]


@pytest.mark.parametrize("codec", [Codec.H264, Codec.HEVC])
def test_joins_of_the_file_are_those_of_one_stream(tmp_path, codec):
    """With an encoder and a key frame per chunk, the step into a join was twice that of one stream."""
    frames = moving_picture(240, 64, 96)
    plan = plan_chunks(len(frames))
    joins = [chunk.first for chunk in plan if chunk.context]
    delivered = as_delivered(frames, plan, VideoFormat(codec), tmp_path / "v.mp4")
    stream = as_one_stream(frames, VideoFormat(codec))
    for join in joins:
        assert delivered.at([join]) <= 1.1 * stream.at([join])
    assert max(b - a for a, b in zip((0, *delivered.keys), (*delivered.keys, 240), strict=True)) <= 125, "for seeking"


def test_what_stands_still_stays_still_at_a_key_frame(tmp_path):
    still = moving_picture(1, 128, 192, noise=0).expand(240, -1, -1, -1)
    plan = plan_chunks(len(still))
    delivered = as_delivered(still, plan, VideoFormat(), tmp_path / "v.mp4")
    assert delivered.keys and delivered.at(delivered.keys) < 0.8, "0.5; twice as much with x264's usual key frames"
