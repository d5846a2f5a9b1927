"""Lines are attributed to the call that printed them, secrets masked, however the output is cut."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from slipway.executor.worker.frames import mark
from slipway.executor.worker.logs import Line, Splitter

TOKEN = "0badc0de"


def cuts(data: bytes, draw: st.DataObject) -> list[bytes]:
    at, pieces = 0, []
    while at < len(data):
        size = draw.draw(st.integers(1, len(data) - at))
        pieces.append(data[at : at + size])
        at += size
    return pieces


texts = st.text(st.characters(codec="ascii", exclude_characters="\n\r\x1e"), min_size=1, max_size=12)


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 9), st.lists(texts, max_size=3), st.booleans()), max_size=6),
    st.data(),
)
def test_every_line_comes_out_once_with_its_call(
    said: list[tuple[int | None, list[str], bool]], data: st.DataObject
) -> None:
    stream, expected = b"", []
    for call, lines, ended in said:
        stream += mark(TOKEN, call)
        text = "\n".join(lines) + ("\n" if ended and lines else "")
        stream += text.encode()
        expected += [Line(1, call, line) for line in lines]
    splitter, got = Splitter(TOKEN), []
    for piece in cuts(stream, data):
        got += splitter.feed(1, piece)
    assert got + splitter.finish() == expected


@given(st.binary(max_size=400), st.data())
def test_no_cut_lets_a_secret_through(noise: bytes, data: st.DataObject) -> None:
    secret = b"hunter2-secret"
    place = data.draw(st.integers(0, len(noise)))
    stream = noise[:place] + secret + noise[place:]
    splitter = Splitter(TOKEN, secrets=(secret.decode(),), max_line=40)
    got: list[Line] = []
    for piece in cuts(stream, data):
        got += splitter.feed(2, piece)
    joined = "".join(line.text for line in [*got, *splitter.finish()])
    assert secret.decode() not in joined


def test_the_streams_are_apart() -> None:
    splitter = Splitter(TOKEN)
    assert splitter.feed(1, mark(TOKEN, 1) + b"out") == []
    assert splitter.feed(2, b"err\n") == [Line(2, None, "err")]
    assert splitter.feed(1, b"put\n") == [Line(1, 1, "output")]


def test_a_secret_of_several_lines_is_masked_line_by_line() -> None:
    splitter = Splitter(TOKEN, secrets=("-----BEGIN KEY-----\nMIIEvQ==\nno",))
    got = splitter.feed(1, b"MIIEvQ==\nhas no meaning\n")
    assert [line.text for line in got] == ["***", "has no meaning"]


def test_an_endless_line_is_given_out_in_pieces() -> None:
    splitter = Splitter(TOKEN, max_line=100)
    got = splitter.feed(1, b"x" * 250)
    assert [len(line.text) for line in got] == [100, 100]
    assert [len(line.text) for line in splitter.feed(1, b"\n")] == [50]


def test_a_forged_mark_is_text() -> None:
    splitter = Splitter(TOKEN)
    assert splitter.feed(1, mark("guessed", 5) + b"x\n")[1] == Line(1, None, "x")


def test_a_secret_is_masked_however_a_program_writes_it() -> None:
    value = "pa\"ss'w\\ord größe & more"
    splitter = Splitter("t", (value, "\udcffnot-utf8"))
    for said in (value, repr({"A": value}), json.dumps({"A": value}), f"http://u:{quote(value, safe='')}@host/"):
        (line,) = splitter.feed(1, f"{said}\n".encode())
        assert "***" in line.text
        assert "ord" not in line.text
    (line,) = splitter.feed(1, b"\xffnot-utf8\n")
    assert line.text == "***"
    assert splitter.mask(f"ValueError: {value}") == "ValueError: ***"
