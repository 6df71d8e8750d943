"""Jobs that people write for the batch client: what is wrong is said in one sentence, before anything is queued."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the client needs aiohttp, which ComfyUI brings")

REPO = Path(__file__).resolve().parents[2]
sys.path += [str(REPO / "tests" / "support")]

from dub_runs import dub, make_jobs, out, states  # noqa: E402
from fake_comfyui import FakeComfyUI  # noqa: E402
from jobs import JobError, read_jobs  # noqa: E402

PAIR = '"source": "anna.mp4", "voice": "anna.wav"'
PYTHON = ("Traceback", "Error", "Errno", "NoneType", "dict", "Expecting value: line", "object has no")


def one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and not any(word in text for word in PYTHON)


@pytest.fixture
def server():
    with FakeComfyUI() as server:
        yield server
        assert not server.prompts and not server.uploads, "something was sent"


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


LINES = {
    "a misspelt key": ('{"sorce": "anna.mp4", "voice": "anna.wav"}', "unknown key 'sorce'; did you mean 'source'?"),
    "a misspelt optional key": (f'{{{PAIR}, "nmae": "x"}}', "unknown key 'nmae'; did you mean 'name'?"),
    "an unknown key": (f'{{{PAIR}, "zzz": 1}}', "unknown key 'zzz': a job has source, voice, name, set"),
    "no voice": ('{"source": "anna.mp4"}', "its voice is no name of a file"),
    "a number": ('{"source": 5, "voice": "anna.wav"}', "its source is no name of a file"),
    "null": ('{"source": null, "voice": "anna.wav"}', "its source is no name of a file"),
    "an empty name": ('{"source": "", "voice": "anna.wav"}', "its source is no name of a file"),
    "a folder": ('{"source": ".", "voice": "anna.wav"}', "there is no file"),
    "a missing file": ('{"source": "nobody.mp4", "voice": "anna.wav"}', "there is no file"),
    "a long path": (f'{{"source": "{"x" * 5000}", "voice": "anna.wav"}}', "cannot be looked at: File name too long"),
    "a NUL": ('{"source": "anna\\u0000.mp4", "voice": "anna.wav"}', "there is no file"),
    "half a character": ('{"source": "anna\\ud800.mp4", "voice": "anna.wav"}', "has half a character"),
    "a source of another kind": ('{"source": "anna.wav", "voice": "anna.wav"}', "cannot load anna.wav"),
    "an empty list of jobs": ('{"jobs": []}', "unknown key 'jobs'"),
    "a JSON list": ("[]", "is not a job: each line is one"),
    "a text": ('"anna.mp4"', "is not a job: each line is one"),
    "CSV": ("anna.mp4,anna.wav", "is not a job: each line is one"),
    "CSV with a header": ("source;voice\nanna.mp4;anna.wav", "line 1 of jobs.jsonl is not a job"),
    "YAML": ("source: anna.mp4\nvoice: anna.wav", "line 1 of jobs.jsonl is not a job"),
    "over several lines": (f"{{\n{PAIR}\n}}", "line 1 of jobs.jsonl is not a job: each line is one"),
    "a comma behind": (f"{{{PAIR}}},", "is no JSON: Extra data"),
    "two jobs on a line": (f"{{{PAIR}}} {{{PAIR}}}", "is no JSON: Extra data"),
    "single quotes": ("{'source': 'anna.mp4'}", "is no JSON"),
    "cut off": ('{"source": "anna.mp4", "voice": "an', "is no JSON"),
    "nested 1,000 deep": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": {deep(1000)}}}}}', "nested too deeply"),
    "nested 100 deep": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": {deep(100)}}}}}', "nested too deeply"),
    "nested 100,000 deep": (deep(100_000), "nested too deeply"),
    "NaN": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": NaN}}}}', "has NaN, which is no number"),
    "-Infinity": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": -Infinity}}}}', "has -Infinity, which is no number"),
    "1e999": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": 1e999}}}}', "larger than any setting takes"),
    "5,000 digits": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": {"9" * 5000}}}}}', "more digits than any setting"),
    "a key twice": (f'{{{PAIR}, "voice": "ben.wav"}}', "has 'voice' twice"),
    "a setting twice": (f'{{{PAIR}, "set": {{"ChunkSampler.seed": 1, "ChunkSampler.seed": 2}}}}', "twice: take one"),
    "settings in a list": (f'{{{PAIR}, "set": []}}', '"set" is not of the form'),
    "settings in a text": (f'{{{PAIR}, "set": "seed=5"}}', '"set" is not of the form'),
    "settings null": (f'{{{PAIR}, "set": null}}', '"set" is not of the form'),
    "a name that is a number": (f'{{{PAIR}, "name": 5}}', '"name" is not a text'),
    "a name that is a list": (f'{{{PAIR}, "name": []}}', '"name" is not a text'),
    "a misspelt node": (f'{{{PAIR}, "set": {{"ChunkSampel.seed": 1}}}}', "did you mean 'ChunkSampler'?"),
    "no input": (f'{{{PAIR}, "set": {{"ChunkSampler": 1}}}}', "write it as NodeClass.input"),
    "a name of lines": (f'{{{PAIR}, "set": {{"a\\n\\u001b[2Jb.c": 1}}}}', "the workflow has no a"),
    "the same name twice": (f"{{{PAIR}}}\n{{{PAIR}}}", "2 jobs are called 'anna'"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_list_is_refused_in_one_sentence(tmp_path, capsys, server, case):
    content, says = LINES[case]
    listed = make_jobs(tmp_path) / "jobs.jsonl"
    listed.write_text(content)
    assert dub(listed, server) == 2
    said = capsys.readouterr().err
    assert says in said and one_sentence(said), said


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "jobs.jsonl holds no job; write one on each line"),
    "empty lines": (b"\n\r\n  \n", "jobs.jsonl holds no job; write one on each line"),
    "a mark only": (b"\xef\xbb\xbf", "jobs.jsonl holds no job"),
    "UTF-16": (f"{{{PAIR}}}".encode("utf-16"), "is no text in UTF-8: save it anew"),
    "Latin-1": ('{"source": "José.mp4"}'.encode("latin-1"), "is no text in UTF-8: save it anew"),
    "a film": (b"\x00\x00\x00 ftypisom" + bytes(range(256)), "is no text in UTF-8: save it anew"),
    "zeros": (bytes(1000), "line 1 of jobs.jsonl is not a job"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_list_is_refused_in_one_sentence(tmp_path, capsys, server, case):
    content, says = FILES[case]
    listed = make_jobs(tmp_path) / "jobs.jsonl"
    listed.write_bytes(content)
    assert dub(listed, server) == 2
    said = capsys.readouterr().err
    assert says in said and one_sentence(said), said


def test_a_huge_file_is_not_read(tmp_path, capsys, server):
    listed = make_jobs(tmp_path) / "film.mp4"
    with listed.open("wb") as file:
        file.truncate(20 << 30)  # a hole
    assert dub(listed, server) == 2
    assert "is too large to be a text: 20480 MB" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["missing", "empty folder", "pipe", "loop"])
def test_what_is_no_jobs_is_named(tmp_path, capsys, server, kind):
    make_jobs(tmp_path)
    path = tmp_path / ("nowhere" if kind == "missing" else "odd")
    if kind == "empty folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    more = ("--out", str(tmp_path / "out"), "--workflow", str(tmp_path / "workflow.json"))
    assert dub(path, server, more=more) == 2
    assert one_sentence(capsys.readouterr().err)


def test_a_long_path_of_jobs_is_named():
    with pytest.raises(JobError, match="cannot be looked at: File name too long"):
        read_jobs(Path("x" * 300))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", [".", "jobs.jsonl"])
def test_what_may_not_be_read_is_named(tmp_path, capsys, server, name):
    jobs = make_jobs(tmp_path)
    (jobs / "jobs.jsonl").write_text(f"{{{PAIR}}}")
    (jobs / name).chmod(0)
    try:
        assert dub(jobs / name, server) == 2
    finally:
        (jobs / name).chmod(0o700)
    assert "cannot be read: Permission denied" in capsys.readouterr().err


def test_lists_that_are_written_with_care_are_read(tmp_path):
    jobs = make_jobs(tmp_path)
    odd = "li\u2028ne\x85"  # ends of lines for some programs, and letters of a text in JSON
    (jobs / f"{odd}.mp4").write_bytes(b"odd")
    lines = [f"{{{PAIR}}}", "", json.dumps({"source": f"{odd}.mp4", "voice": "ben.wav"}, ensure_ascii=False)]
    for end in ("\n", "\r\n", "\r"):
        (jobs / "jobs.jsonl").write_bytes(b"\xef\xbb\xbf" + (end.join(lines) + end).encode())
        assert [job.name for job in read_jobs(jobs / "jobs.jsonl")] == ["anna", "li_ne__ben"]


def test_a_pair_with_accents_of_two_forms_is_a_pair(tmp_path):
    jobs = make_jobs(tmp_path, ())
    (jobs / "Jos\u00e9.mp4").write_bytes(b"")
    (jobs / "Jose\u0301.wav").write_bytes(b"")
    assert [job.name for job in read_jobs(jobs)] == ["Jos\u00e9"]


# -- settings, against the server's nodes


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    return json.loads((REPO / "tests" / "host" / "object_info.json").read_text())


SETTINGS = {
    "a misspelt input": ("ChunkSampler.sed=1", "InfiniteTalkChunkSampler has no input 'sed'; did you mean 'seed'?"),
    "another spelling": ("ChunkSampler.Chunk_Frames=81", "did you mean 'chunk_frames'?"),
    "the input of another node": ("ReferencePicker.seed=1", "InfiniteTalkReferencePicker has no input 'seed'"),
    "an input of one letter": ("ChunkSampler.x=1", "has no input 'x'"),
    "a text for a number": ("ChunkSampler.seed=abc", '"abc" is no whole number'),
    "a fraction for a whole number": ("ChunkSampler.chunk_frames=81.5", "81.5 is no whole number"),
    "a decimal comma": ("ChunkSampler.color_hold=0,5", '"0,5" is no number'),
    "true for a number": ("ChunkSampler.seed=true", "true is no whole number"),
    "null for a number": ("ChunkSampler.seed=null", "null is no whole number"),
    "below the range": ("ChunkSampler.seed=-1", "-1 is less than 0, the smallest that it takes"),
    "above the range": ("ChunkSampler.color_hold=7", "7 is more than"),
    "a text of NaN": ('ChunkSampler.color_hold="nan"', '"nan" is no number'),
    "a text for true or false": ("ChunkSampler.start_over=no", '"no" is neither true nor false'),
    "a misspelt choice": ("ChunkSampler.after_redo=contine", "did you mean 'continue'?"),
    "a choice in a list": ('ChunkSampler.after_redo=["continue"]', "a list is no setting"),
    "an object for a text": ('ChunkSampler.redo_chunks={"a": 1}', "is no text"),
    "a value for a connection": ("ChunkSampler.model=wan.safetensors", "is connected to another node"),
    "a connection to nothing": ('ChunkSampler.model=["99", 0]', "the workflow has no node '99'"),
}


@pytest.mark.parametrize("where", ["--set", "the list"])
@pytest.mark.parametrize("case", SETTINGS)
def test_a_wrong_setting_is_refused_by_the_servers_own_nodes(tmp_path, capsys, server, nodes, case, where):
    setting, says = SETTINGS[case]
    server.object_info = nodes
    jobs = make_jobs(tmp_path)
    more = ("--set", setting)
    if where == "the list":
        name, _, value = setting.partition("=")
        try:
            content = json.loads(value)
        except ValueError:
            content = value
        lines = [{"source": "ben.mp4", "voice": "ben.wav"}]
        lines += [{"source": "anna.mp4", "voice": "anna.wav", "set": {name: content}}]
        jobs, more = jobs / "jobs.jsonl", ()
        jobs.write_text("\n".join(map(json.dumps, lines)))
    assert dub(jobs, server, more=more) == 2
    said = capsys.readouterr().err
    assert says in said and one_sentence(said), said
    assert "job 'anna'" in said and ("line 2 of jobs.jsonl" in said) == (where == "the list")
    assert set(states(jobs).values()) == {"waiting"}


@pytest.mark.parametrize(
    "setting",
    [
        "ChunkSampler.seed=18446744073709551615",
        'InfiniteTalkChunkSampler.seed="7"',
        "ChunkSampler.color_hold=1",
        "ChunkSampler.redo_chunks=4",
        "ChunkSampler.after_redo=keep",
        "ChunkSampler.start_over=true",
        'ReferencePicker.video=["20", 1]',
    ],
)
def test_a_right_setting_is_taken(tmp_path, nodes, setting):
    with FakeComfyUI() as server:
        server.object_info = nodes
        assert dub(make_jobs(tmp_path, ("anna",)), server, more=("--set", setting)) == 0


def test_a_server_without_the_pack_leaves_the_jobs_to_the_others(tmp_path, nodes, capsys):
    jobs = make_jobs(tmp_path)
    with FakeComfyUI() as without, FakeComfyUI() as server:
        without.object_info, server.object_info = {"LoadImage": {}}, nodes
        assert dub(jobs, without, server) == 0
        assert not without.prompts and len(server.prompts) == 3
        assert "is given up: it has no InfiniteTalkChunkSampler" in capsys.readouterr().out
        assert dub(jobs, without, more=("--set", "ChunkSampler.seed=2")) == 2
    assert "install the pack there" in capsys.readouterr().err


@pytest.mark.parametrize("info", [{}, "text", [1], {"input": []}, {"input": {"required": 5}}, {"input": None}, None])
def test_nodes_of_a_form_that_we_do_not_know_are_not_checked(tmp_path, nodes, info):
    with FakeComfyUI() as server:
        server.object_info = {**nodes, "InfiniteTalkChunkSampler": info}
        assert dub(make_jobs(tmp_path, ("anna",)), server, more=("--set", "ChunkSampler.sed=1")) == 0


@pytest.mark.parametrize("spec", [[], "INT", [None], [5, 5], [[]], ["COMBO"], ["INT", "x"], ["COMFY_DYNAMIC_V3", {}]])
def test_inputs_of_a_form_that_we_do_not_know_are_not_checked(tmp_path, nodes, spec):
    with FakeComfyUI() as server:
        sampler = {"input": {"required": {"seed": spec}}}
        server.object_info = {**nodes, "InfiniteTalkChunkSampler": sampler}
        status = dub(make_jobs(tmp_path, ("anna",)), server, more=("--set", "ChunkSampler.seed=1"))
    assert status == (2 if spec == [[]] else 0), "an empty list of choices holds none"


# -- options


@pytest.mark.parametrize(
    "option",
    [
        ("--patience", "nan"),
        ("--patience", "-1"),
        ("--look", "0"),
        ("--look", "x"),
        ("--retries", "-1"),
        ("--retries", "1.5"),
    ],
)
def test_a_number_that_is_none_is_refused(tmp_path, capsys, server, option):
    with pytest.raises(SystemExit):
        dub(make_jobs(tmp_path), server, more=option)
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "http://", "http://a:99999", "http://a/?x=1", "a b", "http://[::1", "//"]
)
def test_an_address_that_is_none_is_refused(tmp_path, capsys, server, url):
    assert dub(make_jobs(tmp_path), server, more=("--server", url)) == 2
    said = capsys.readouterr().err
    assert "is no address" in said and one_sentence(said)
    assert not out(tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[" * 5000, "{", '{"1": {"class_type": 5, "inputs": {}}}', '{"1": {"class_type": "X"}}', "NaN", "\ufeff[1]"],
)
def test_a_workflow_that_is_none_is_refused(tmp_path, capsys, server, content):
    jobs = make_jobs(tmp_path)
    (tmp_path / "workflow.json").write_text(content)
    assert dub(jobs, server) == 2
    said = capsys.readouterr().err
    assert "workflow.json" in said and one_sentence(said)


def test_an_empty_connection_in_a_workflow_is_none(tmp_path, capsys, server):
    jobs = make_jobs(tmp_path)
    workflow = json.loads((tmp_path / "workflow.json").read_text())
    workflow["21"]["inputs"] = {"image": [], "video": []}
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    assert dub(jobs, server) == 2
    assert "must have one node that loads the source" in capsys.readouterr().err
