"""The inputs and the workers of a pool, as `placement` sees them. Nothing here waits, sleeps, opens or spawns.

Workers are kept in groups by how much they have to do, so that the next one to use is found at once, however many
there are; so is the next input.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from .lifecycle import Event, State, advance

WAITING = -1.0  # instead of the time at which an input began: it was sent ahead and has not
RETRIES = 1  # what fails is tried again, as the function's `retries` say
THREAD = 2  # it runs in a thread when there are others beside it, which nothing can interrupt


class Batch:
    """Inputs that a worker runs as one."""

    __slots__ = ("answered", "members")

    def __init__(self, members: tuple[Placed, ...]) -> None:
        self.members = members
        self.answered = 0


class Placed:
    """An input."""

    __slots__ = (
        *("asked_back", "batch", "cancelled", "depth", "failures", "held", "losses", "number", "queued", "seat"),
        *("since", "slept", "state", "streamed", "traits", "waits"),
    )

    def __init__(self, number: int, traits: int, depth: int, failures: int, losses: int, now: float) -> None:
        self.number = number
        self.state = State.QUEUED
        self.traits = traits
        self.depth = depth  # how many inputs it is below: its caller, that one's caller …
        self.failures = failures
        self.losses = losses
        self.queued = now  # since when it waits
        self.since = 0.0  # when this attempt began, or WAITING
        self.seat: Seat | None = None
        self.batch: Batch | None = None
        self.asked_back = False  # it was sent ahead and is to be given back
        self.cancelled = False  # nobody wants its answer any more
        self.streamed = False  # items of it have been passed on, so that it can't begin anew
        self.held = False  # it rests, but its worker has not let go of the attempt before
        self.slept = False  # it rests, but the time for the next attempt has come
        self.waits = 0  # calls that it made and that are not over

    def step(self, event: Event) -> None:
        self.state = advance(self.state, event)


class Seat:
    """A worker."""

    __slots__ = (
        *("alarms", "calls", "doomed", "idle_since", "killed", "let_go", "number", "ready", "ready_at", "stopping"),
        *("units", "used"),
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.stopping = False
        self.let_go = False  # it stops when it has answered what it runs
        self.killed = False
        self.ready_at = 0.0
        self.used = False  # it has answered something
        self.calls: dict[int, Placed] = {}  # sent to it and not answered
        self.units = 0  # of these, inputs or batches: what its slots hold
        self.doomed: dict[int, float] = {}  # told to give up → when the worker is killed if it does not
        self.idle_since = 0.0
        self.alarms = 0  # which kinds of them are set


class Seats:
    """The workers of a pool."""

    __slots__ = ("by_number", "idle", "last_number", "room", "slots", "spare", "starting", "stopping", "target")

    def __init__(self, slots: int, target: int) -> None:
        self.slots = slots
        self.target = target
        self.by_number: dict[int, Seat] = {}
        # The last one used is used next, so that the others can go: each is in the order of time.
        self.idle: dict[Seat, None] = {}  # without work
        self.room: dict[Seat, None] = {}  # with less of it than they should have
        self.spare: dict[Seat, None] = {}  # with more than that, and less than they can have
        self.starting: dict[Seat, None] = {}
        self.stopping = 0
        self.last_number = 0

    @property
    def alive(self) -> int:
        """Those that are there or on their way, and were not told to go."""
        return len(self.by_number) - self.stopping

    @property
    def ready(self) -> int:
        return len(self.by_number) - self.stopping - len(self.starting)

    def start(self) -> Seat:
        self.last_number += 1
        seat = self.by_number[self.last_number] = Seat(self.last_number)
        self.starting[seat] = None
        return seat

    def make_ready(self, number: int) -> Seat:
        seat = self.by_number[number]
        seat.ready = True
        self.starting.pop(seat, None)
        return seat

    def remove(self, number: int) -> Seat:
        seat = self.by_number.pop(number)
        if seat.stopping:
            self.stopping -= 1
        else:
            self.starting.pop(seat, None)
            self._unfile(seat)
        return seat

    def retire(self, seat: Seat) -> None:
        """It takes no more inputs."""
        if not seat.stopping:
            seat.stopping = True
            self.stopping += 1
            self.starting.pop(seat, None)
            self._unfile(seat)

    def file(self, seat: Seat) -> None:
        """Put it where it belongs by what it has to do."""
        self._unfile(seat)
        units = seat.units
        if not units:
            self.idle[seat] = None
        elif units < self.target:
            self.room[seat] = None
        elif units < self.slots:
            self.spare[seat] = None

    def _unfile(self, seat: Seat) -> None:
        self.idle.pop(seat, None)
        if self.slots > 1:
            self.room.pop(seat, None)
            self.spare.pop(seat, None)

    def take(self, *, beyond: bool) -> Seat | None:
        """The next worker to give an input to; it belongs nowhere until it is filed again. `beyond`: also one that has
        as many as it should have."""
        if self.room:
            return self.room.popitem()[0]
        if self.idle:
            return self.idle.popitem()[0]
        return self.spare.popitem()[0] if beyond and self.spare else None


class Queue:
    """The inputs that wait, in their order: what another input waits for goes first, the deepest before the others, so
    that what has begun comes to an end before more is begun."""

    __slots__ = ("_levels", "_plain")

    def __init__(self) -> None:
        self._plain: OrderedDict[int, Placed] = OrderedDict()
        self._levels: dict[int, OrderedDict[int, Placed]] = {}  # by depth, none of them empty

    def __len__(self) -> int:
        if self._levels:
            return len(self._plain) + sum(map(len, self._levels.values()))
        return len(self._plain)

    def __iter__(self) -> Iterator[int]:
        for depth in sorted(self._levels, reverse=True):
            yield from self._levels[depth]
        yield from self._plain

    def push(self, placed: Placed) -> None:
        (self._plain if not placed.depth else self._level(placed.depth))[placed.number] = placed

    def push_first(self, placed: Placed) -> None:
        level = self._plain if not placed.depth else self._level(placed.depth)
        level[placed.number] = placed
        level.move_to_end(placed.number, last=False)

    def pop(self) -> Placed:
        if not self._levels:
            return self._plain.popitem(last=False)[1]
        depth = max(self._levels)
        placed = self._levels[depth].popitem(last=False)[1]
        self._tidy(depth)
        return placed

    def first(self) -> Placed:
        return next(iter((self._levels[max(self._levels)] if self._levels else self._plain).values()))

    def remove(self, placed: Placed) -> None:
        if not placed.depth:
            del self._plain[placed.number]
        else:
            del self._levels[placed.depth][placed.number]
            self._tidy(placed.depth)

    def clear(self) -> None:
        self._plain.clear()
        self._levels.clear()

    def _level(self, depth: int) -> OrderedDict[int, Placed]:
        return self._levels.setdefault(depth, OrderedDict())

    def _tidy(self, depth: int) -> None:
        if not self._levels[depth]:
            del self._levels[depth]
