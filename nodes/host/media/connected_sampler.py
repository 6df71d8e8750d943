"""What the Reference Picker is told of the Chunk Sampler behind it: the lengths of its chunks, and the voice.

ComfyUI hands a node what lies before it in the graph, never what lies after it. So each prompt that comes in is
completed: a picker gets the sampler's numbers, and the link of the voice from before the speech is encoded, so that it
needs no model. As they are inputs then, ComfyUI runs the picker again when they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeGuard

from server import PromptServer

from ....infinitetalk_core.chunks.job import Sampling
from ....infinitetalk_core.errors import InputError
from ....infinitetalk_core.sampling.settings import PRESETS, SamplingSettings

PICKER, SAMPLER = "InfiniteTalkReferencePicker", "InfiniteTalkChunkSampler"
GUIDANCE, SPEECH_ENCODE = "InfiniteTalkGuidance", "InfiniteTalkSpeechEncode"
# Inputs that no schema names, so that no node shows them. ComfyUI counts them all the same.
CHUNK_FRAMES, CONTEXT_FRAMES = "planned_chunk_frames", "planned_context_frames"
LINKED = "planned_link"  # the name of the input that was linked
TARGETS = "partial_execution_targets"  # of ComfyUI: the output nodes that a prompt is for; None: all
Prompt = dict[str, Any]


def complete_prompts() -> None:
    """Have ComfyUI complete each prompt that comes in."""
    if getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.add_on_prompt_handler(completed)


def completed(request: Any) -> Any:
    """Return the body of POST /prompt with its pickers completed. What is no prompt is left for ComfyUI to refuse.

    A picker before a sampler is no goal of its own unless it was asked for alone: else ComfyUI would accept a prompt
    whose sampler lacks something, run the picker only, and a client would learn of it in `node_errors` alone.
    """
    prompt = request.get("prompt") if isinstance(request, dict) else None
    if not isinstance(prompt, dict):
        return request
    pickers = [node for node in prompt if _class_of(prompt, node) == PICKER]
    samplers = {picker: sampler for picker in pickers for sampler in islice(_samplers_behind(prompt, picker), 1)}
    for picker, sampler in samplers.items():
        _complete(prompt, picker, sampler)
    if samplers and request.get(TARGETS) is None:
        request[TARGETS] = [node for node in prompt if node not in samplers]
    return request


def planned_lengths(prompt: Prompt | None, node: str | None) -> tuple[int, int]:
    """Return chunk_frames and context_frames of the sampler behind a picker; the defaults where they are not known.

    prompt: the whole one, with what `completed` has added; node: the picker's id.
    """
    given = _inputs(prompt or {}, node)
    try:
        chosen = Sampling(
            chunk_frames=given.get(CHUNK_FRAMES, Sampling.chunk_frames),
            context_frames=given.get(CONTEXT_FRAMES, Sampling.context_frames),
        )
    except (InputError, TypeError):  # the sampler will say what is wrong with them
        chosen = Sampling()
    if chosen.context_frames >= chosen.chunk_frames:
        chosen = Sampling()
    return chosen.chunk_frames, chosen.context_frames


def _complete(prompt: Prompt, picker: str, sampler: str) -> None:
    """Add to a picker what the sampler behind it says."""
    inputs = _inputs(prompt, picker)
    for name, number in zip((CHUNK_FRAMES, CONTEXT_FRAMES), _lengths(prompt, sampler), strict=True):
        if number is not None:
            inputs[name] = number
    if inputs.get("speech") is not None or inputs.get("voice") is not None:
        return
    name, link = "speech", _inputs(prompt, sampler).get("speech")
    if _is_link(link) and _class_of(prompt, link[0]) == SPEECH_ENCODE:
        name, link = "voice", _inputs(prompt, link[0]).get("audio")
    if _is_link(link) and picker not in _upstream(prompt, link[0]):
        inputs[name], inputs[LINKED] = list(link), name


def as_sent(prompt: Prompt) -> Prompt:
    """Return a prompt without what `completed` has added to it."""
    sent = {}
    for node in prompt:
        inputs = _inputs(prompt, node)
        added = (CHUNK_FRAMES, CONTEXT_FRAMES, LINKED, inputs.get(LINKED))
        sent[node] = {**prompt[node], "inputs": {k: v for k, v in inputs.items() if k not in added}}
    return sent


def _lengths(prompt: Prompt, sampler: str) -> tuple[int | None, int | None]:
    """Return chunk_frames and context_frames of a sampler, with those of its guidance's model; None if not known."""
    names = ("chunk_frames", "context_frames")
    found = [_number(prompt, _inputs(prompt, sampler).get(name, getattr(Sampling, name))) for name in names]
    link = _inputs(prompt, sampler).get("guidance")
    chunk_frames, context_frames = found
    if chunk_frames is None or context_frames is None:
        return chunk_frames, context_frames
    if not _is_link(link) or _class_of(prompt, link[0]) != GUIDANCE:
        return chunk_frames, context_frames
    preset = _inputs(prompt, link[0]).get("preset")
    settings = PRESETS.get(preset, SamplingSettings()) if isinstance(preset, str) else SamplingSettings()
    try:
        sampling = Sampling(
            settings=settings, chunk_frames=chunk_frames, context_frames=context_frames
        ).with_lengths_of_model()
    except InputError:  # the sampler will say what is wrong with them
        return chunk_frames, context_frames
    return sampling.chunk_frames, sampling.context_frames


def _number(prompt: Prompt, value: Any) -> int | None:
    """Return a whole number that is typed in, or in the node that a link comes from, such as core's Int."""
    if _is_link(value):
        value = _inputs(prompt, value[0]).get("value")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _samplers_behind(prompt: Prompt, picker: str) -> Iterator[str]:
    """Yield the samplers that take the picker's reference, directly or through other nodes."""
    reached, waiting = {picker}, [picker]
    while waiting:
        origin = waiting.pop(0)
        for node in prompt:
            for name, link in _inputs(prompt, node).items():
                taken = _is_link(link) and link[0] == origin and (origin != picker or link[1] == 0)
                if not taken or node in reached:
                    continue
                if _class_of(prompt, node) == SAMPLER:
                    if name == "reference":
                        yield node
                    continue
                reached.add(node)
                waiting.append(node)


def _upstream(prompt: Prompt, node: str) -> set[str]:
    """Return a node and all nodes that it depends on."""
    found, waiting = set(), [node]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += [link[0] for link in _inputs(prompt, each).values() if _is_link(link)]
    return found


def _inputs(prompt: Prompt, node: Any) -> dict[str, Any]:
    """Return the inputs of a node; empty for what is none."""
    found = prompt.get(node) if isinstance(node, str) else None
    inputs = found.get("inputs") if isinstance(found, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _class_of(prompt: Prompt, node: Any) -> Any:
    found = prompt.get(node) if isinstance(node, str) else None
    return found.get("class_type") if isinstance(found, dict) else None


def _is_link(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
