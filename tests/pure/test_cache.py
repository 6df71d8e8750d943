"""The shared model cache: one copy for all, idle models up to a budget, the longest idle first, none that is in use."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.model_cache import FileStamp, Lease, ModelCache, ModelKey


@dataclass(eq=False)
class Model:
    """Stands for loaded weights."""

    size: int = 1
    content: str = ""


@dataclass
class Shelf:
    """A cache of `Model`s, and who uses which."""

    cache: ModelCache
    leases: dict[int, list[Lease]] = field(default_factory=dict)
    loaded: list[int] = field(default_factory=list)

    def ask(self, number: int, size: int = 1) -> Model:
        def load() -> Model:
            self.loaded.append(number)
            return Model(size)

        lease = self.cache.get(key(number), load)
        self.leases.setdefault(number, []).append(lease)
        return lease.value

    def give_back(self, number: int) -> None:
        self.leases[number].pop()

    def idle(self) -> list[int]:
        """Longest idle first."""
        return [e.key.options[0] for e in self.cache.contents().entries if not e.users]


def key(number: int) -> ModelKey:
    return ModelKey(FileStamp("/models/a", (("a", 1, 2, 3),)), "test", (number,))


def make_shelf(budget: int) -> Shelf:
    return Shelf(ModelCache(budget, lambda model: model.size))


def test_two_graphs_get_one_copy():
    shelf = make_shelf(0)
    assert shelf.ask(1) is shelf.ask(1)
    assert shelf.loaded == [1]
    contents = shelf.cache.contents()
    assert (contents.hits, contents.misses, contents.evictions) == (1, 1, 0)


def test_what_nobody_uses_is_kept_for_the_next_prompt():
    shelf = make_shelf(5)
    model = shelf.ask(1, 5)
    shelf.give_back(1)
    assert shelf.idle() == [1]
    assert shelf.ask(1, 5) is model
    assert shelf.loaded == [1]


def test_the_longest_idle_goes_first_and_is_really_freed():
    shelf = make_shelf(10)
    ghosts = {n: weakref.ref(shelf.ask(n, 4)) for n in (1, 2, 3)}
    for number in (2, 3, 1):
        shelf.give_back(number)
    assert shelf.idle() == [3, 1]
    assert ghosts[2]() is None and ghosts[3]() is not None
    assert shelf.cache.contents().evictions == 1


def test_a_model_larger_than_the_budget_goes_as_soon_as_it_is_idle():
    shelf = make_shelf(3)
    shelf.ask(1, 4)
    assert [e.key.options[0] for e in shelf.cache.contents().entries] == [1], "in use, whatever its size"
    shelf.give_back(1)
    assert shelf.cache.contents().entries == ()


def test_a_smaller_budget_takes_effect_at_once():
    shelf = make_shelf(10)
    for number in (1, 2):
        shelf.ask(number, 5)
        shelf.give_back(number)
    shelf.cache.set_budget(5)
    assert shelf.idle() == [2]
    shelf.cache.set_budget(0)
    assert shelf.idle() == []


def test_emptied_while_in_use_it_goes_when_its_last_user_does():
    shelf = make_shelf(10)
    ghost = weakref.ref(shelf.ask(1))
    shelf.ask(2)
    shelf.give_back(2)
    assert shelf.cache.empty()
    assert shelf.idle() == [] and ghost() is not None
    shelf.give_back(1)
    assert ghost() is None


def test_emptied_but_asked_for_again_it_is_kept():
    shelf = make_shelf(10)
    shelf.ask(1)
    shelf.cache.empty()
    shelf.ask(1)
    shelf.give_back(1)
    shelf.give_back(1)
    assert shelf.idle() == [1] and shelf.loaded == [1]


def test_what_cannot_go_yet_goes_when_it_can():
    """ComfyUI has a model on the GPU: it must not vanish while ComfyUI counts it."""
    shelf = make_shelf(10)
    shelf.ask(1)
    shelf.give_back(1)
    assert not shelf.cache.empty(lambda model: False)
    assert shelf.idle() == [1]
    assert shelf.cache.empty(lambda model: True)
    assert shelf.idle() == []


ACTIONS = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 5)),
    st.tuples(st.just("give back"), st.integers(0, 5)),
    st.tuples(st.just("budget"), st.integers(0, 12)),
    st.tuples(st.just("empty"), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 12), st.lists(ACTIONS, max_size=40))
def test_whatever_happens_budget_order_and_users_are_respected(budget, actions):
    shelf, sizes = make_shelf(budget), [1, 2, 3, 4, 5, 6]
    order: list[int] = []  # of idle models, as it must be
    doomed: set[int] = set()
    for action, number in actions:
        if action == "ask":
            known = number in order or bool(shelf.leases.get(number))
            before = len(shelf.loaded)
            shelf.ask(number, sizes[number])
            assert len(shelf.loaded) == before + (not known), "loaded exactly when it was not there"
            order = [n for n in order if n != number]
            doomed.discard(number)
        elif action == "give back" and shelf.leases.get(number):
            shelf.give_back(number)
            if not shelf.leases[number] and number not in doomed:
                order.append(number)
        elif action == "budget":
            budget = number
            shelf.cache.set_budget(budget)
        elif action == "empty":
            shelf.cache.empty()
            doomed, order = {n for n, users in shelf.leases.items() if users}, []
        while sum(sizes[n] for n in order) > budget:
            order.pop(0)
        contents = shelf.cache.contents()
        assert shelf.idle() == order
        assert contents.idle_bytes == sum(sizes[n] for n in order) <= budget
        used = {n: len(users) for n, users in shelf.leases.items() if users}
        assert {e.key.options[0]: e.users for e in contents.entries if e.users} == used


def test_threads_that_ask_at_once_load_once():
    cache, loads = ModelCache(10, lambda model: 1), []

    def load() -> Model:
        loads.append(1)
        time.sleep(0.05)
        return Model()

    found: list[Lease] = []
    threads = [threading.Thread(target=lambda: found.append(cache.get(key(1), load))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8 and len({id(lease.value) for lease in found}) == 1
    assert len(loads) == 1
    assert (cache.contents().hits, cache.contents().misses) == (7, 1)


def test_a_load_that_fails_is_tried_again_by_the_next():
    cache, begun, go_on = ModelCache(10, lambda model: 1), threading.Event(), threading.Event()

    def fail() -> Model:
        begun.set()
        go_on.wait(10)
        raise OSError("made up by a test")

    def first() -> None:
        with pytest.raises(OSError, match="made up"):
            cache.get(key(1), fail)

    found: list[Lease] = []
    threads = [
        threading.Thread(target=first),
        threading.Thread(target=lambda: found.append(cache.get(key(1), Model))),
    ]
    threads[0].start()
    begun.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(found) == 1


def test_many_threads_leave_the_books_right():
    cache = ModelCache(6, lambda model: model.size)

    def work(seed: int) -> None:
        for step in range(200):
            number = (seed * 7 + step * 3) % 5
            lease = cache.get(key(number), lambda size=number + 1: Model(size))
            assert lease.value.size == number + 1
            if step % 50 == seed:
                cache.empty()
            del lease

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    contents = cache.contents()
    assert all(entry.users == 0 for entry in contents.entries)
    assert contents.idle_bytes <= 6
    assert contents.hits + contents.misses == 1200


def test_a_lease_that_ends_in_the_middle_of_the_caches_own_work_does_no_harm():
    """The garbage collector may run at any moment, also in the thread that holds the cache's lock."""
    shelf = make_shelf(10)
    knot: list = [shelf.ask(1), shelf.leases.pop(1)]
    knot.append(knot)  # only the collector can end this lease

    def collect(model: Model) -> bool:
        gc.collect()
        return True

    del knot
    shelf.ask(2)
    shelf.give_back(2)
    shelf.cache.empty(collect)
    assert all(not e.users for e in shelf.cache.contents().entries)


def test_a_file_is_what_it_is_as_long_as_nobody_touches_it(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"12345")
    stamp = FileStamp.of(file)
    assert FileStamp.of(file) == stamp
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    assert FileStamp.of(link) == stamp, "the same file by another name"
    os.utime(file, ns=(1, 1))
    assert FileStamp.of(file) != stamp
    other = tmp_path / "other"
    other.write_bytes(b"54321")
    os.utime(other, ns=(1, 1))
    old = FileStamp.of(file)
    other.replace(file)
    assert FileStamp.of(file) != old, "replaced by another of the same size and time"


def test_a_folder_is_what_its_files_are(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    stamp = FileStamp.of(tmp_path)
    weights.write_bytes(b"12")
    assert FileStamp.of(tmp_path) != stamp
    with pytest.raises(OSError):
        FileStamp.of(tmp_path / "nothing")


def test_a_file_that_changed_is_loaded_again_and_its_old_state_is_not_kept(tmp_path):
    file = tmp_path / "weights"
    cache = ModelCache(100, lambda model: 1)

    def ask() -> Lease:
        return cache.get(ModelKey(FileStamp.of(file), "test"), lambda: Model(content=file.read_text()))

    file.write_text("old")
    lease = ask()
    del lease
    file.write_text("newer")
    new = ask()
    assert new.value.content == "newer"
    assert len(cache.contents().entries) == 1, "the old state went: nobody can ask for it"
    file.write_text("newest")
    newest = ask()
    assert new.value.content == "newer" and newest.value.content == "newest", "who works with it goes on"
    del new
    assert len(cache.contents().entries) == 1


def test_the_same_file_in_two_types_is_two_models():
    cache = ModelCache(100, lambda model: 1)
    file = FileStamp("/models/a", (("a", 1, 2, 3),))
    leases = [cache.get(ModelKey(file, "test", (dtype,)), Model) for dtype in ("float32", "bfloat16", "float32")]
    assert leases[0].value is leases[2].value is not leases[1].value
    assert len(cache.contents().entries) == 2
