"""The few lines of shell that run in containers of Docker Engine, and what they say between a program's output.

What is private (settings, arguments) goes in on stdin, never into anything that an engine keeps or shows. A mark is a
random word: what follows it in a stream is ours, up to a ";". Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

import re

from attrs import frozen

OURS = "slipway-shell"  # in the command line of every process of ours, so that they can be told from the user's

# A container's first process where it has no program of its own. Asked to end it tells every process once, those that
# are born meanwhile too, and ends when all have. Its stdin ends with the engine.
KEEPER = """
stop() {
  told=" 1 $$ "
  while :; do
    left=
    for pid in /proc/[0-9]*; do
      pid=${pid#/proc/}
      case $told in
        *" $pid "*) [ "$pid" = 1 ] || [ "$pid" = $$ ] || left=1 ;;
        *) kill -TERM "$pid" 2>/dev/null && told="$told$pid " && left=1 ;;
      esac
    done
    [ "$left" ] || exit 0
    sleep 0.02 2>/dev/null || sleep 1
  done
}
trap stop TERM
while read -r _; do :; done
"""

# Reads a script up to the line that is the mark and becomes what the script says. $1: the mark.
READER = """
script=
while IFS= read -r line && [ "$line" != "$1" ]; do script="$script$line
"; done
eval "$script"
"""

# The same beside others: says its number first, and in the end how it ended. A parent that stays tells the end at once;
# the engine would wait for children that hold the output. $1: the mark, $2: what the child does.
RUNNER = """
trap : HUP INT QUIT TERM
ooms() {
  count=
  for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r $file ] && while read -r key value; do [ "$key" = oom_kill ] && count=$value; done <$file
  done
}
ooms
before=$count
exec 3>&1 4>&2 >/dev/null 2>&1
( exec /bin/sh -c "$2" "$0" "$1" >&3 2>&4 3>&- 4>&- )
code=$?
ooms
[ "$count" = "$before" ] || code="$code oom"
printf '%s' "$1$code;" >&4
printf '%s' "$1$code;" >&3
"""

STARTER = f"""printf '%s' "$1$$;"{READER}"""

# On a terminal: says its number, waits until it may, says that it starts. $1: the mark, $2: the script.
GREETER = """
printf '%s' "$1$$;"
read -r _
printf '%s' "$1;"
eval "$2"
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def keeper() -> list[str]:
    return ["/bin/sh", "-c", KEEPER, OURS]


def reader(mark: str) -> list[str]:
    return ["/bin/sh", "-c", READER, OURS, mark]


def runner(mark: str) -> list[str]:
    return ["/bin/sh", "-c", RUNNER, OURS, mark, STARTER]


def greeter(mark: str, words: str) -> list[str]:
    return ["/bin/sh", "-c", GREETER, OURS, mark, words]


def signaller(pid: int, number: int) -> list[str]:
    return ["/bin/sh", "-c", f"kill -{number} {pid}", OURS]


def script(
    argv: tuple[str, ...],
    *,
    env: tuple[tuple[str, str], ...] = (),
    cwd: str,
    instead: str = "",
    stdin: bool = True,
) -> str:
    """What becomes the program. `instead`: another folder where the first is closed. A name that no shell can export
    is set by `env`.

    >>> print(script(("sh", "-c", "it's"), env=(("A", "1"), ("B.C", "2")), cwd="/root", instead="/", stdin=False))
    cd '/root' 2>/dev/null || cd '/' || exit 126
    export A='1'
    exec </dev/null
    exec env 'B.C=2' 'sh' '-c' 'it'\\''s'
    """
    closed = f"2>/dev/null || cd {quote(instead)} " if instead else ""
    lines = [f"cd {quote(cwd)} {closed}|| exit 126"]
    lines += [f"export {name}={quote(value)}" for name, value in env if _NAME.fullmatch(name)]
    odd = [f"{name}={value}" for name, value in env if not _NAME.fullmatch(name)]
    if not stdin:
        lines.append("exec </dev/null")
    words = (*(["env"] if odd else []), *map(quote, odd), *map(quote, argv))
    return "\n".join([*lines, f"exec {' '.join(words)}"])


def quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@frozen(kw_only=True)
class Ended:
    code: int
    oom: bool = False


class Marked:
    """Takes what is ours out of one stream of a program. `notes` are the words that followed a mark, in order."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._held = b""
        self.notes: list[str] = []

    def feed(self, data: bytes) -> bytes:
        """The program's own bytes among these; what may be the beginning of a mark is held back.

        >>> marked = Marked("M!")
        >>> marked.feed(b"M!12;hello M"), marked.feed(b"e M!0"), marked.feed(b";"), marked.notes
        (b'hello ', b'Me ', b'', ['12', '0'])
        """
        data = self._held + data
        own = []
        while True:
            before, found, after = data.partition(self._mark)
            note, ended, rest = after.partition(b";")
            if not found or not ended:
                break
            own.append(before)
            self.notes.append(note.decode(errors="replace"))
            data = rest
        keep = len(before) if found else len(data) - _beginning(data, self._mark)
        own.append(data[:keep])
        self._held = data[keep:]
        return b"".join(own)

    def rest(self) -> bytes:
        """What was held back and is no mark after all, for nothing more comes."""
        held, self._held = self._held, b""
        return held


def _beginning(data: bytes, mark: bytes) -> int:
    """How many of the last bytes are the beginning of a mark."""
    for size in range(min(len(mark) - 1, len(data)), 0, -1):
        if mark.startswith(data[-size:]):
            return size
    return 0


def ended(note: str) -> Ended | None:
    """How a program ended, by the last note of its streams.

    >>> ended("137 oom")
    Ended(code=137, oom=True)
    """
    code, _, oom = note.partition(" ")
    return Ended(code=int(code), oom=oom == "oom") if code.isdecimal() else None
