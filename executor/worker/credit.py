"""How far a generator may be ahead of whoever takes its items."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_ITEMS = 256
MOST_BYTES = 16 << 20


class Credit:
    """Counts the items that were sent and not taken yet. `took` comes from a thread of its own."""

    __slots__ = ("_awake", "_bytes", "_lock", "_sizes", "wake")

    def __init__(self, wake: Callable[[], object] | None = None) -> None:
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._awake = threading.Lock()  # held while there is no news for whoever waits
        self._awake.acquire()
        self.wake = wake or self._wake

    def room(self) -> bool:
        """Whether one more item may be sent.

        However big it is: the consumer says what it took in bunches, and would wait for this item where what it has
        taken and not said yet leaves no room for it.

        >>> credit = Credit()
        >>> credit.sent(1 << 30)
        >>> credit.room()
        False
        >>> credit.took(1)
        >>> credit.room()
        True
        """
        with self._lock:
            return len(self._sizes) < MOST_ITEMS and self._bytes < MOST_BYTES

    def sent(self, size: int) -> None:
        with self._lock:
            self._sizes.append(size)
            self._bytes += size

    def took(self, count: int) -> None:
        """The consumer took so many more."""
        with self._lock:
            for _ in range(min(count, len(self._sizes))):
                self._bytes -= self._sizes.popleft()
        self.wake()

    def sleep(self) -> None:
        """Wait for news: `took`, or `wake` for another reason. A signal's handler may raise out of it."""
        self._awake.acquire()

    def _wake(self) -> None:
        try:
            self._awake.release()
        except RuntimeError:
            pass  # it is awake, and has not looked yet
