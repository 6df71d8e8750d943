"""Whatever a link brings into a node is taken as it is meant, or refused in one sentence that names the input.

Generated from the schemas: every input of every node with every odd value. Nothing here needs a model, since values are
checked before a node's own code runs.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from comfy_api.latest import io
from input_table import record_inputs

STORED = json.loads((Path(__file__).parent / "object_info.json").read_text(encoding="utf-8"))
EVERY_INPUT = [
    (node_id, name)
    for node_id, node in STORED.items()
    if node_id.startswith("InfiniteTalk")
    for group in ("required", "optional")
    for name in node["input"].get(group, {})
]
# Words of Python and its libraries, which say nothing to an artist.
PYTHON = re.compile(
    r"Traceback|None|Error\b|object|attribute|argument|dtype|ndarray|torch\.|numpy|<class|subscript|iterable|hashable|"
    r"operand|unsupported|tensor\(|array\(|\bdict\b|\bstr\b|\bint\b|\bfloat\b|NoneType|expected|convert",
)
LONGEST_SENTENCE = 900  # a choice names its options
WIDGETS = (io.Int.Input, io.Float.Input)


@functools.cache
def schemas(pack_name: str) -> dict[str, Any]:
    import_module(f"{pack_name}.nodes.host.model.model_files").register_folders()
    nodes = import_module(f"{pack_name}.nodes").NODES
    return {
        schema.node_id: (node, {i.id: i for i in schema.inputs}) for node in nodes if (schema := node.define_schema())
    }


def odd_values(spec: io.Input) -> dict[str, Any]:
    """What other packs, switches and API clients may give for an input, by a name for it."""
    numbers: dict[str, Any] = {"minus one": -1, "two and a half": 2.5}
    if isinstance(spec, WIDGETS):
        numbers = {"below": spec.min - 1, "above": spec.max + 1, "far above": (spec.max + 1) * 10**30}
        if isinstance(spec, io.Int.Input):
            numbers |= {"a half": spec.min + 0.5, "numpy half": np.float32(spec.min + 0.5)}
    return {
        **numbers,
        **{"NaN": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "numpy NaN": np.float32("nan")},
        **{"tensor NaN": torch.tensor(float("nan")), "decimal NaN": Decimal("NaN"), "complex": 1j, "huge": 10**5000},
        **{"text": "soon", "empty text": "", "NUL": "a\0b", "half a character": "a\ud800", "bytes": b"\xff\x00"},
        **{"nothing": None, "no list": [], "list": ["a", "b", "c"], "link": ["1", 0], "set": {1, 2}, "table": {"a": 1}},
        **{
            "numbers": np.arange(3),
            "tensor": torch.zeros(2, 3),
            "nested": [[[[1]]]],
            "class": int,
            "any": SimpleNamespace(),
        },
        **{
            "latent": {"samples": torch.zeros(1, 4, 8, 8)},
            "empty tensor": torch.zeros(0),
            "words": np.array(["a", "b"]),
        },
    }


# Odd, and yet of the kind: a black picture of 2 x 3, no text, schedules that the sampler refuses.
OF_THE_KIND = {
    *(("IMAGE", "tensor"), ("MASK", "tensor"), ("CONDITIONING", "no list")),
    *(("SIGMAS", "numbers"), ("SIGMAS", "empty tensor")),
}


FILES = ("audio_encoder", "infinitetalk", "uni3c", "lora")


def may_be_taken(spec: io.Input, label: str) -> bool:
    if (str(spec.io_type), label) in OF_THE_KIND:
        return True
    if str(spec.io_type) == "*" or (label == "nothing" and spec.optional):
        return True
    if isinstance(spec, io.String.Input) or spec.id in (
        "audio_encoder",
        "infinitetalk",
        "uni3c",
        "lora",
    ):  # checked when read
        return label in ("text", "empty text")
    return False


@pytest.fixture(scope="module")
def refusals() -> Iterator[list[str]]:
    """The sentences of all inputs, which become a row of docs/inputs.md."""
    sentences: list[str] = []
    yield sentences
    record_inputs("values of inputs that nodes must not take", "tests/host/test_inputs.py", 0, len(sentences))


@pytest.mark.parametrize(("node_id", "name"), EVERY_INPUT, ids=lambda part: part.removeprefix("InfiniteTalk"))
def test_odd_values_are_refused_in_one_sentence(pack: Any, refusals: list[str], node_id: str, name: str) -> None:
    node, inputs = schemas(pack.__name__)[node_id]
    refused = 0
    for label, value in odd_values(inputs[name]).items():
        if may_be_taken(inputs[name], label):
            continue
        with pytest.raises(ValueError) as error:
            node.execute(**{name: value})
        sentence = str(error.value)
        assert type(error.value).__name__ == "InputError", f"{label}: {sentence}"
        assert name in sentence.split(" ")[0] or f"({name})" in sentence, f"{label}: {sentence}"
        assert not PYTHON.search(sentence.replace(name, "")), f"{label}: {sentence}"
        assert len(sentence) < LONGEST_SENTENCE and "\n" not in sentence and sentence.isprintable(), sentence
        refused += 1
        refusals.append(sentence)
    assert refused >= 20 or str(inputs[name].io_type) == "*"


def test_every_node_checks_what_enters_it(pack: Any) -> None:
    found = schemas(pack.__name__)
    assert {node_id for node_id, _ in EVERY_INPUT} == set(found)
    for node, _ in found.values():
        assert hasattr(node.execute, "__wrapped__"), node
    tried = sum(len(odd_values(inputs[name])) for node_id, name in EVERY_INPUT for _, inputs in [found[node_id]])
    assert tried > 1800


@pytest.fixture
def check(pack: Any) -> Any:
    """`check(node id, name=value …)`: the values as the node gets them."""
    check_inputs = import_module(f"{pack.__name__}.nodes.inputs").check_inputs

    def run(node_id: str, **given: Any) -> dict[str, Any]:
        return check_inputs(list(schemas(pack.__name__)[node_id][1].values()), given)

    return run


SAMPLER = "InfiniteTalkChunkSampler"
SEVEN = [
    7,
    7.0,
    np.int64(7),
    np.float32(7),
    np.array(7),
    np.array([7]),
    torch.tensor(7),
    torch.tensor([7.0]),
    [7],
    (7,),
]


@pytest.mark.parametrize("value", [*SEVEN, Decimal(7), Fraction(7), torch.tensor(7, dtype=torch.bfloat16)])
def test_numbers_of_any_make_are_the_same_number(check: Any, pack: Any, value: Any) -> None:
    fingerprint = import_module(f"{pack.__name__}.infinitetalk_core.fingerprint")
    (whole,) = check(SAMPLER, seed=value).values()
    (real,) = check("InfiniteTalkGuidance", shift=value).values()
    assert (whole, type(whole), real, type(real)) == (7, int, 7.0, float)
    assert fingerprint.key_of(fingerprint.describe([whole, real])) == fingerprint.key_of([7, 7.0])


def test_limits_may_be_rounded_to_32_bits(check: Any) -> None:
    assert check("InfiniteTalkCameraPath", seconds=np.float32(0.04)) == {"seconds": 0.04}
    assert check("InfiniteTalkStepCache", threshold=np.float32(0.01)) == {"threshold": 0.01}
    assert check(SAMPLER, seed=np.uint64(2**64 - 1)) == {"seed": 2**64 - 1}


@pytest.mark.parametrize("value", [True, np.True_, 1, 1.0, np.array(True), torch.tensor(1), [True]])
def test_what_is_on(check: Any, value: Any) -> None:
    assert check(SAMPLER, start_over=value)["start_over"] is True


def test_texts_and_choices_of_numpy_and_in_a_list(check: Any) -> None:
    found = check(SAMPLER, filename_prefix=[np.str_("a")], color_anchor=("first reference",))
    assert found == {"filename_prefix": "a", "color_anchor": "first reference"}
    assert all(type(value) is str for value in found.values())


def test_nothing_on_an_optional_input_is_not_connected(check: Any, pack: Any) -> None:
    for node_id, (_, inputs) in schemas(pack.__name__).items():
        optional = {name: None for name, spec in inputs.items() if spec.optional}
        assert check(node_id, **optional) == {}


def test_an_input_that_a_node_does_not_have(pack: Any) -> None:
    node = schemas(pack.__name__)[SAMPLER][0]
    with pytest.raises(ValueError, match="no input 'colour_hold'; use color_hold"):
        node.execute(colour_hold=1.0)
    with pytest.raises(ValueError, match="no input 'zzzzzz'; remove it"):
        node.execute(zzzzzz=1.0)
    with pytest.raises(ValueError, match="model is not connected"):
        node.execute(seed=1)


@pytest.mark.parametrize(
    ("module", "node", "given", "name"),
    [
        ("sdedit", "SDEditStrength", {"strength": 0.9}, "sdedit"),
        ("sdedit", "SDEditStrength", {"strength": 0.9, "per_chunk": "0.95, 0.9"}, "sdedit"),
        ("guidance", "GuidanceSettings", {"preset": "custom", "steps": 4, "shift": 7}, "guidance"),
        ("video_format", "VideoFormatNode", {"codec": "H.264", "bit_depth": "8 bit", "crf": 18}, "video_format"),
        ("pinned_region", "PinnedRegion", {"mask": torch.ones(1, 4, 4), "feather": 16}, "pinned"),
    ],
)
def test_what_our_own_nodes_make_is_taken_as_it_is(
    check: Any, pack: Any, module: str, node: str, given: Any, name: str
):
    cls = getattr(import_module(f"{pack.__name__}.nodes.{module}"), node)
    if node == "GuidanceSettings":
        given = {**given, "text_scale": 1, "audio_scale": 2}
    (made,) = cls.execute(**given).args
    assert check(SAMPLER, **{name: made})[name] is made
    assert check(SAMPLER, **{name: [made]})[name] is made


@pytest.mark.parametrize("value", [[0.9, 0.5, 0.0], np.array([0.9, 0.5, 0.0]), torch.tensor([0.9, 0.5, 0.0])])
def test_noise_levels(check: Any, value: Any) -> None:
    (levels,) = check(SAMPLER, sigmas=value).values()
    torch.testing.assert_close(levels.float(), torch.tensor([0.9, 0.5, 0.0]))


def test_a_text_with_nan_does_not_blame_the_attention(check: Any) -> None:
    good = [[torch.zeros(1, 4, 8), {}]]
    assert check(SAMPLER, positive=good)["positive"] is good
    with pytest.raises(ValueError, match=r"negative holds values that are no numbers .* its text encoder went wrong"):
        check(SAMPLER, negative=[[torch.full((1, 4, 8), float("nan")), {}]])
