"""What does not change between steps is not computed in each of them."""

from __future__ import annotations

import torch

from infinitetalk_core.model.rope import line_angles, rotate_pairs, video_rotation


def test_shared_cosines_rotate_to_the_same_bits():
    """The rotary tables of a prediction are made once and not in each of its layers."""
    torch.manual_seed(0)
    grid, head = (3, 4, 5), 128
    x = torch.randn(2, 60, 3, head)
    third = 2 * (head // 6)
    places = torch.cartesian_prod(*(torch.arange(n) for n in grid))
    dims = (head - 2 * third, third, third)
    angles = torch.cat([line_angles(places[:, i], d) for i, d in enumerate(dims)], dim=-1).float()
    assert torch.equal(video_rotation(grid, head, x.device)(x), rotate_pairs(x, angles[None, :, None]))
