"""The solver: any interleaving ends, nothing runs twice or before its inputs, only what needs a failure is skipped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.dsl.errors import InternalError
from slipway.executor.solver import Solver, Status, Task


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Task, ...]:
    """Graphs in which a node needs only nodes before it, listed in any order."""
    size = draw(st.integers(0, 14))
    tasks = [
        Task(
            name=f"n{i}",
            needs=tuple(draw(st.lists(st.sampled_from([f"n{j}" for j in range(i)]), max_size=4))) if i else (),
        )
        for i in range(size)
    ]
    return tuple(draw(st.permutations(tasks)))


@pytest.mark.slow
@given(tasks=graphs(), width=st.integers(1, 5), data=st.data())
def test_any_interleaving_ends_right(tasks: tuple[Task, ...], width: int, data: st.DataObject) -> None:
    needs = {task.name: set(task.needs) for task in tasks}
    solver = Solver(tasks, width=width)
    running = list(solver.begin())
    started, done, failed = set(running), set[str](), set[str]()
    stopped = False
    while running:
        assert len(running) <= width
        if not stopped and data.draw(st.integers(0, 12)) == 0:
            solver.stop()
            stopped = True
        name = data.draw(st.sampled_from(running))
        running.remove(name)
        if data.draw(st.booleans()):
            done.add(name)
            new = solver.done(name)
        else:
            failed.add(name)
            new = solver.failed(name)
        for other in new:
            assert other not in started, "started twice"
            assert needs[other] <= done, "started before its inputs"
            assert not stopped, "started after stop"
        started |= set(new)
        running += new
    assert solver.finished
    assert set(solver.names(Status.DONE)) == done
    assert set(solver.names(Status.FAILED)) == failed
    assert set(solver.skipped) == set(needs) - done - failed
    if not stopped:
        assert {name for name in needs if _needs_failed(name, needs, failed)} - failed == set(solver.skipped)
        assert all(because in failed for because in solver.skipped.values())


def _needs_failed(name: str, needs: dict[str, set[str]], failed: set[str]) -> bool:
    return any(need in failed or _needs_failed(need, needs, failed) for need in needs[name])


@pytest.mark.slow
@given(tasks=graphs())
def test_with_room_for_all_everything_that_can_run_does(tasks: tuple[Task, ...]) -> None:
    solver = Solver(tasks, width=100)
    running = set(solver.begin())
    done: set[str] = set()
    while running:
        assert running == {task.name for task in tasks if set(task.needs) <= done} - done
        name = min(running)
        done.add(name)
        running = (running - {name}) | set(solver.done(name))
    assert solver.finished


def test_branches_go_on_after_a_failure() -> None:
    chain = (Task(name="a"), Task(name="b", needs=("a",)), Task(name="x"), Task(name="y", needs=("x",)))
    solver = Solver((*chain, Task(name="both", needs=("b", "y"))), width=2)
    assert solver.begin() == ("a", "x")
    assert solver.failed("a") == ()
    assert solver.done("x") == ("y",)
    assert solver.done("y") == ()
    assert solver.skipped == {"b": "a", "both": "a"}
    assert solver.finished


def test_what_stands_first_starts_first() -> None:
    solver = Solver((Task(name="c"), Task(name="a"), Task(name="b")), width=1)
    assert [solver.begin(), solver.done("c"), solver.done("a"), solver.done("b")] == [("c",), ("a",), ("b",), ()]


def test_an_empty_graph_is_finished() -> None:
    solver = Solver((), width=1)
    assert solver.begin() == ()
    assert solver.finished


@pytest.mark.parametrize(
    "tasks", [(Task(name="a", needs=("a",)),), (Task(name="a", needs=("b",)), Task(name="b", needs=("a",)))]
)
def test_a_circle_is_an_internal_error(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(InternalError, match="circle"):
        Solver(tasks, width=1)


def test_a_need_that_is_not_there_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="needs b"):
        Solver((Task(name="a", needs=("b",)),), width=1)


def test_ending_what_does_not_run_is_an_internal_error() -> None:
    solver = Solver((Task(name="a"),), width=1)
    with pytest.raises(InternalError, match="not running"):
        solver.done("a")


def test_ten_thousand_nodes_are_quick() -> None:
    tasks = (Task(name="n0"), *(Task(name=f"n{i}", needs=("n0", f"n{i - 1}")) for i in range(1, 10_000)))
    solver = Solver(tasks, width=8)
    running = list(solver.begin())
    while running:
        running += solver.done(running.pop())
    assert solver.finished
