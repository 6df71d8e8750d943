"""Golden case `buckets`: the size a picture gets and its pixels after resize and crop are the reference's."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.chunks.sizes import BUCKETS_480P, BUCKETS_720P, choose_bucket, fit_mask_to, fit_to

TABLES = {"infinitetalk-480": BUCKETS_480P, "infinitetalk-720": BUCKETS_720P}


@pytest.mark.parametrize(("name", "ours"), [("ASPECT_RATIO_627", BUCKETS_480P), ("ASPECT_RATIO_960", BUCKETS_720P)])
def test_our_tables_are_the_references(golden, name, ours):
    theirs = tuple((float(ratio), *size) for ratio, (size, _) in golden("buckets").config[name].items())
    assert ours == theirs


def test_every_source_size_gets_the_references_bucket(golden):
    for row in golden("buckets").config["bucket_choice"]:
        got = choose_bucket(row["src_h"], row["src_w"], TABLES[row["table"]])
        assert got == (row["target_h"], row["target_w"]), row


def test_pictures_are_resized_and_cropped_to_the_same_pixels(golden):
    case = golden("buckets")
    for row in case.config["resize"]:
        got = fit_to(case[f"inputs/{row['id']}/image"] / 255, *row["target"])
        want = case[f"outputs/{row['id']}/image"][0, :, 0].permute(1, 2, 0)
        assert torch.equal((got * 255).round().to(torch.uint8), want), row


def test_masks_are_resized_and_cropped_to_the_same_pixels(golden):
    case = golden("buckets")
    for row in case.config["resize"]:
        got = fit_mask_to(case[f"inputs/{row['id']}/mask"], *row["target"])
        assert torch.equal(got, case[f"outputs/{row['id']}/mask"]), row
