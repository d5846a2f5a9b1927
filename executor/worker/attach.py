"""Started in a container before a program: takes its standard streams over a socket, then becomes the program.

Standard library only, and little of it: `python -I -S attach.py SOCKET PROGRAM [ARGUMENTS]…`. So a program in a
container reads and writes the pipes of whoever started it, whatever makes the containers.
"""

import os
import signal
import socket
import sys


def main(path: str, argv: list[str]) -> int:
    for which in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(which, signal.SIG_DFL)  # Python's own ways with them are not the program's
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(path)
        _, descriptors, _, _ = socket.recv_fds(link, 1, 3)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 - no pathlib here, for a quick start
        if b"\0LC_CTYPE=" not in b"\0" + file.read():
            os.environ.pop("LC_CTYPE", None)  # Python itself has set it where no locale is named
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - that is what this is for
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        os.write(2, f"{argv[0]}: {'not found on PATH' if missing else error.strerror}\n".encode())
        return 127 if missing else 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
