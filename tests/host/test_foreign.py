"""Sound, pictures and masks as other packs hand them over: as they are meant, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

RATE = 16000


class Lazy(Mapping):
    """A mapping that is no dict, as VideoHelperSuite hands over."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@pytest.fixture
def media(pack: Any) -> SimpleNamespace:
    names = {"audio": "audio", "pictures": "foreign_pictures", "foreign": "foreign", "video": "video"}
    return SimpleNamespace(**{k: import_module(f"{pack.__name__}.nodes.host.media.{v}") for k, v in names.items()})


@pytest.fixture
def said(media: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, pack: Any) -> list[str]:
    """What the user is told."""
    texts: list[str] = []
    for module in ("foreign_pictures", "foreign_sound"):
        monkeypatch.setattr(import_module(f"{pack.__name__}.nodes.host.media.{module}"), "say", texts.append)
    return texts


WAVE = torch.sin(torch.arange(1600) / 20)[None, None] * 0.5
STEREO = torch.cat([WAVE, WAVE * 0.5], 1)
PCM16 = (WAVE * 32767).round()

SOUNDS = {
    "as ComfyUI has it": WAVE,
    "double": WAVE.double(),
    "half": WAVE.half(),
    "bfloat16": WAVE.bfloat16(),
    "one dimension": WAVE[0, 0],
    "two dimensions": WAVE[0],
    "samples first": WAVE[0].T,
    "int16": PCM16.short(),
    "int32": (WAVE.double() * (2**31 - 1)).to(torch.int32),
    "uint8": (WAVE * 127 + 128).round().to(torch.uint8),
    "int8": (WAVE * 127).round().to(torch.int8),
    "int16 in int32": PCM16.int(),
    "int16 in int64": PCM16.long(),
    "int16 as floats": PCM16,
    "numpy": WAVE.numpy(),
    "numpy int16": PCM16.short().numpy(),
    "numpy big-endian": WAVE.numpy().astype(">f4"),
    "numpy backwards twice": WAVE.numpy()[..., ::-1][..., ::-1],
    "list of one": [WAVE[0]],
    "list of numbers": WAVE[0, 0].tolist(),
    "lists of channels": WAVE[0].tolist(),
    "of training": WAVE.clone().requires_grad_(),
}


@pytest.mark.parametrize("made", SOUNDS.values(), ids=SOUNDS)
@pytest.mark.parametrize("table", [dict, Lazy])
def test_sound_of_any_make_is_the_same_sound(media: Any, said: list[str], made: Any, table: type) -> None:
    sound = media.audio.sound_of(table(waveform=made, sample_rate=RATE), "audio")
    assert (sound.waveform.dtype, tuple(sound.waveform.shape)) == (torch.float32, (1, 1600))
    torch.testing.assert_close(sound.waveform, WAVE[0], atol=0.01, rtol=0)
    assert sound.sample_rate_hz == RATE and type(sound.sample_rate_hz) is int


def test_what_comfyui_hands_over_is_used_as_it_is(media: Any, said: list[str]) -> None:
    sound = media.audio.sound_of({"waveform": STEREO, "sample_rate": RATE})
    assert sound.waveform.data_ptr() == STEREO.data_ptr() and said == []
    loud = media.audio.sound_of({"waveform": STEREO * 8, "sample_rate": RATE})
    torch.testing.assert_close(loud.waveform, STEREO[0] * 8)


def test_samples_of_16_bits_as_floats_are_said(media: Any, said: list[str]) -> None:
    media.audio.sound_of({"waveform": PCM16, "sample_rate": RATE}, "audio_2")
    assert len(said) == 1 and "audio_2 has samples up to 163" in said[0] and "divided by 32768" in said[0]


@pytest.mark.parametrize("rate", [np.int64(RATE), 16000.0, np.array(RATE), torch.tensor(RATE), [RATE], Fraction(RATE)])
def test_sample_rates_of_any_make(media: Any, rate: Any) -> None:
    assert media.audio.sound_of({"waveform": WAVE, "sample_rate": rate}).sample_rate_hz == RATE


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 64])
def test_a_few_samples_of_many_channels_stay_as_they_are(media: Any, channels: int) -> None:
    sound = media.audio.sound_of({"waveform": torch.zeros(channels, 2), "sample_rate": RATE})
    assert tuple(sound.waveform.shape) == (channels, 2)


BAD_SOUNDS = {
    "rate none": ({"waveform": WAVE, "sample_rate": None}, "sample rate"),
    "rate text": ({"waveform": WAVE, "sample_rate": "16000"}, "sample rate"),
    "rate NaN": ({"waveform": WAVE, "sample_rate": float("nan")}, "NaN Hz"),
    "rate inf": ({"waveform": WAVE, "sample_rate": float("inf")}, "infinity Hz"),
    "rate 1": ({"waveform": WAVE, "sample_rate": 1}, "1 Hz"),
    "rate huge": ({"waveform": WAVE, "sample_rate": 2**31}, "2147483648 Hz"),
    "rate 0.5": ({"waveform": WAVE, "sample_rate": 16000.5}, "whole number"),
    "no rate": ({"waveform": WAVE}, "sound \\(AUDIO\\) with its sample rate, and got a sound"),
    "no waveform": (Lazy(sample_rate=1), "got a table with sample_rate"),
    "latent": ({"samples": WAVE}, "got latents"),
    "a tensor": (WAVE, "got numbers in the shape 1 x 1 x 1600"),
    "waveform none": ({"waveform": None, "sample_rate": RATE}, "got nothing"),
    "waveform text": ({"waveform": "a.wav", "sample_rate": RATE}, "got the text 'a.wav'"),
    "two sounds": ({"waveform": [WAVE[0], WAVE[0]], "sample_rate": RATE}, "a list of 2 sounds"),
    "a batch": ({"waveform": torch.cat([WAVE, WAVE]), "sample_rate": RATE}, "batch of 2 clips"),
    "ragged": ({"waveform": [[0.1, 0.2], [0.3]], "sample_rate": RATE}, "and got a list of 2 that are none"),
    "words": ({"waveform": ["a", "b"], "sample_rate": RATE}, "and got a list of 2 that are none"),
    "empty list": ({"waveform": [], "sample_rate": RATE}, "sound is empty"),
    "four dimensions": ({"waveform": WAVE[None], "sample_rate": RATE}, "channels x samples"),
    "bool": ({"waveform": WAVE > 0, "sample_rate": RATE}, "channels x samples"),
    "complex": ({"waveform": WAVE.to(torch.complex64), "sample_rate": RATE}, "sparse, complex"),
    "meta": ({"waveform": WAVE.to("meta"), "sample_rate": RATE}, "without values"),
    "objects": ({"waveform": np.array([None, 1]), "sample_rate": RATE}, "got numbers in the shape 2"),
    "NaN": ({"waveform": WAVE * float("nan"), "sample_rate": RATE}, "1600 of the sound's 1600 samples are NaN"),
    "inf": ({"waveform": WAVE.clone().fill_(float("inf")), "sample_rate": RATE}, "infinite"),
    "unsure floats": ({"waveform": WAVE * 200, "sample_rate": RATE}, "samples up to 99.* divide them"),
    "floats of 32 bits": ({"waveform": WAVE * 2.0**31, "sample_rate": RATE}, "divide them"),
    "24 bits in 32": ({"waveform": (WAVE * 2.0**23).int(), "sample_rate": RATE}, "divide them"),
    "8 bits in 64": ({"waveform": (WAVE * 127).long(), "sample_rate": RATE}, "divide them"),
}


@pytest.mark.parametrize(("audio", "words"), BAD_SOUNDS.values(), ids=BAD_SOUNDS)
def test_sound_that_may_be_meant_in_several_ways_or_none(media: Any, audio: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        media.audio.sound_of(audio, "audio_1")
    assert type(refused.value).__name__ == "InputError" and "\n" not in str(refused.value)


# Every shade of 8 bits, not square, and no dimension that could be colors.
BYTES = torch.randint(0, 256, (2, 6, 10, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
BYTES[0, 0, 0, 0], BYTES[0, 0, 1, 0] = 0, 255
IMAGES = BYTES.float() / 255

PICTURES = {
    "as ComfyUI has it": IMAGES,
    "half": IMAGES.half(),
    "bfloat16": IMAGES.bfloat16(),
    "double": IMAGES.double(),
    "uint8": BYTES,
    "int64": BYTES.long(),
    "0 to 255": BYTES.float(),
    "0 to 255 in half": BYTES.half(),
    "0 to 255, blurred": BYTES.float() * 0.99,
    "numpy": IMAGES.numpy(),
    "numpy uint8": BYTES.numpy(),
    "numpy 16 bits": (IMAGES.double() * 65535).round().numpy().astype(np.uint16),
    "channels first": IMAGES.permute(0, 3, 1, 2),
    "with alpha": torch.cat([IMAGES, torch.rand(2, 6, 10, 1)], -1),
    "five dimensions": IMAGES[None],
    "a list of pictures": [IMAGES[0], IMAGES[1]],
    "a list of batches": [IMAGES[:1], IMAGES[1:]],
    "a list of one": [IMAGES],
    "PIL": [Image.fromarray(picture) for picture in BYTES.numpy()],
    "of training": IMAGES.clone().requires_grad_(),
    "a little over": IMAGES * 1.004 - 0.001,
}


@pytest.mark.parametrize("made", PICTURES.values(), ids=PICTURES)
def test_pictures_of_any_make_are_the_same_pictures(media: Any, said: list[str], made: Any) -> None:
    found = media.pictures.as_images(made)
    assert found.is_floating_point() and not found.requires_grad
    torch.testing.assert_close(found.float(), IMAGES, atol=0.012, rtol=0)


def test_one_picture(media: Any) -> None:
    gray = IMAGES[0, ..., 0]
    for made in (IMAGES[0], IMAGES[0].permute(2, 0, 1), Image.fromarray(BYTES[0].numpy())):
        torch.testing.assert_close(media.pictures.as_images(made), IMAGES[:1])
    for made in (gray, gray[None], gray[..., None], gray[None, ..., None], gray[None, None]):
        torch.testing.assert_close(media.pictures.as_images(made), gray[None, ..., None].expand(1, 6, 10, 3))


def test_comfyuis_own_pictures_stay_as_they_are_so_that_a_job_keeps_its_key(media: Any, pack: Any) -> None:
    fingerprint = import_module(f"{pack.__name__}.infinitetalk_core.fingerprint").tensor_fingerprint
    for made in (IMAGES, IMAGES.half(), torch.cat([IMAGES, IMAGES[..., :1]], -1), IMAGES * 1.2 - 0.1):
        found = media.pictures.as_images(made)
        assert found.data_ptr() == made.data_ptr() and fingerprint(found) == fingerprint(made[..., :3])
    mask = IMAGES[..., 0]
    assert media.pictures.as_mask(mask) is mask or fingerprint(media.pictures.as_mask(mask)) == fingerprint(mask)


def test_numbers_up_to_255_are_said(media: Any, said: list[str]) -> None:
    media.pictures.as_images(BYTES.float(), "image")
    media.pictures.as_mask(torch.full((1, 4, 4), 255.0), "mask_1")
    assert [text.split(" has ")[0] for text in said] == ["image", "mask_1"]
    assert all("divided by 255" in text for text in said)


BAD_PICTURES = {
    "NaN": (IMAGES.clone().index_fill_(1, torch.tensor(2), float("nan")), "no numbers"),
    "inf": (IMAGES.clone().index_fill_(1, torch.tensor(2), float("inf")), "no numbers"),
    "minus one to one": (IMAGES * 2 - 1, "values from -1 to 1"),
    "light of a scene": (IMAGES**2 * 20, "values from 0 to 20"),
    "0 to 65535": (IMAGES * 65535, "values from 0 to 65535"),
    "zero and one": ((IMAGES > 0.5).to(torch.uint8), "the whole numbers 0 and 1"),
    "labels": ((IMAGES * 5).long(), "values from 0 to 5"),
    "negative": (BYTES.long() - 128, "values from -128 to 127"),
    "two channels": (IMAGES[..., :2], "2 x 6 x 10 x 2"),
    "many masks": (IMAGES.flatten(0, 1)[..., 0][None].expand(5, 12, 10), "5 x 12 x 10"),
    "no picture": (IMAGES[:0], "0 x 6 x 10 x 3"),
    "no size": (IMAGES[:, :0], "2 x 0 x 10 x 3"),
    "different sizes": ([IMAGES[0], IMAGES[1, :4]], "different sizes"),
    "empty list": ([], "empty list"),
    "list of names": (["a.png", "b.png"], "got the text 'a.png'"),
    "latent": ({"samples": IMAGES}, "got latents"),
    "one number": (torch.tensor(0.5), "in the shape of one"),
    "sparse": (IMAGES.to_sparse(), "sparse"),
}


@pytest.mark.parametrize(("image", "words"), BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_pictures_that_may_be_meant_in_several_ways_or_none(media: Any, image: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        media.pictures.as_images(image, "image")
    assert type(refused.value).__name__ == "InputError" and "image" in str(refused.value)


MASK = IMAGES[..., 0].clone()
MASKS = {
    "as ComfyUI has it": MASK,
    "one channel": MASK[:, None],
    "one channel last": MASK[..., None],
    "0 to 255": MASK * 255,
    "uint8": BYTES[..., 0],
    "numpy": MASK.numpy(),
    "numpy uint8": BYTES[..., 0].numpy(),
    "list": [MASK[0], MASK[1]],
    "half": MASK.half(),
}


@pytest.mark.parametrize("made", MASKS.values(), ids=MASKS)
def test_masks_of_any_make_are_the_same_masks(media: Any, said: list[str], made: Any) -> None:
    found = media.pictures.as_mask(made)
    torch.testing.assert_close(found.float(), MASK, atol=0.001, rtol=0)


@pytest.mark.parametrize("of_numbers", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_of_black_and_white(media: Any, said: list[str], of_numbers: torch.dtype) -> None:
    wanted = (MASK[:1] > 0.5).float()
    for made in (wanted.to(of_numbers), wanted[0].to(of_numbers), wanted.to(of_numbers).numpy()):
        torch.testing.assert_close(media.pictures.as_mask(made), wanted)
    if of_numbers is not torch.bool:
        torch.testing.assert_close(media.pictures.as_mask((wanted * 255).to(of_numbers)), wanted)
    torch.testing.assert_close(media.pictures.as_mask(torch.zeros(1, 2, 2, dtype=of_numbers)), torch.zeros(1, 2, 2))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (IMAGES, "Convert Image to Mask"),
        (MASK * float("nan"), "no numbers"),
        ((MASK * 5).long(), "values from 0 to 5"),
        (MASK * 3, "values from 0 to 3"),
        (-MASK, "values from -1 to"),
        (MASK[0, 0], "in the shape 10"),
        (MASK[:0], "0 x 6 x 10"),
        ({"samples": MASK}, "latents"),
    ],
)
def test_masks_that_cannot_be_used(media: Any, mask: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        media.pictures.as_mask(mask, "mask_2")


def test_depth_may_be_in_meters(media: Any, said: list[str]) -> None:
    meters = IMAGES * 40
    assert media.pictures.as_depth(meters).max() > 39
    torch.testing.assert_close(media.pictures.as_depth(BYTES.float()), IMAGES)
    torch.testing.assert_close(media.pictures.as_depth(BYTES), IMAGES)
    for bad in (IMAGES * float("nan"), -meters):
        with pytest.raises(ValueError, match="depth has values"):
            media.pictures.as_depth(bad)


class OtherVideo:
    """A VIDEO of another pack, in memory."""

    def __init__(self, images: Any, rate: Any) -> None:
        self.parts = SimpleNamespace(images=images, frame_rate=rate)

    def get_components(self) -> SimpleNamespace:
        return self.parts


@pytest.mark.parametrize("rate", [Fraction(50), 50, 50.0, np.float32(50), torch.tensor(50)])
def test_a_video_of_another_pack(media: Any, said: list[str], rate: Any) -> None:
    source = media.video.source_of(None, OtherVideo(BYTES.numpy().repeat(5, 0), rate))
    assert (source.length, source.height, source.width) == (5, 6, 10)
    torch.testing.assert_close(source.frame(4), IMAGES[1])


@pytest.mark.parametrize("rate", [None, "25", 0, float("nan"), -25])
def test_a_video_of_another_pack_without_a_rate(media: Any, rate: Any) -> None:
    with pytest.raises(ValueError, match=r"frame rate|frames per second"):
        media.video.source_of(None, OtherVideo(IMAGES, rate), name="guidance_video")
