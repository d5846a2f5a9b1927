"""Frames come out as they went in, however the stream is cut; what is no frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.executor.worker.frames import HEADER, Decoder, Flag, Frame, FrameError, Kind, Outcome, pack

flags = st.sampled_from([0, int(Flag.OUTPUT), int(Flag.FORCE), int(Flag.FORCE | Flag.OUTPUT)])
inline = st.builds(
    Frame,
    kind=st.sampled_from([int(kind) for kind in Kind]),
    id=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=300),
    channel=st.integers(0, 2**32 - 1),
    flags=flags,
    outcome=st.sampled_from([int(outcome) for outcome in Outcome]),
    fd_length=st.just(0),
    call=st.integers(0, 2**64 - 1),
)
by_fd = st.builds(
    lambda ident, length: Frame(int(Kind.CALL), ident, flags=int(Flag.FD), fd_length=length),
    st.integers(0, 99),
    st.integers(0, 1 << 40),
)


@given(st.lists(inline | by_fd, max_size=8), st.data())
def test_any_cut_of_a_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(pack(frame) for frame in sent)
    decoder, got, at = Decoder(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        got += decoder.feed(memoryview(stream)[at : at + size])
        at += size
    assert got == sent


@given(st.binary(min_size=HEADER.size, max_size=200))
def test_garbage_is_refused_or_waited_for_but_never_crashes(data: bytes) -> None:
    try:
        for frame in Decoder(limit=1000).feed(data):
            assert frame.kind in set(Kind)
    except FrameError as error:
        assert "not a slipway frame" in str(error)


@pytest.mark.parametrize(
    "header",
    [
        (0, 0, 0, 0, 0, 0, 0),
        (max(Kind) + 1, 0, 0, 0, 0, 0, 0),
        (Kind.CALL, 128, 0, 0, 0, 0, 0),
        (Kind.RESULT, 0, max(Outcome) + 1, 0, 0, 0, 0),
        (Kind.CALL, 0, 0, 0, 0, 0, 101),
        (Kind.CALL, Flag.FD, 0, 0, 0, 0, 101),
    ],
)
def test_what_is_no_frame_is_refused(header: tuple[int, ...]) -> None:
    with pytest.raises(FrameError):
        Decoder(limit=100).feed(HEADER.pack(*header))


def test_the_length_of_a_payload_that_travels_apart_comes_out() -> None:
    sent = Frame(Kind.RESULT, 3, flags=int(Flag.FD), fd_length=5_000_000)
    assert Decoder().feed(pack(sent) + pack(Frame(Kind.READY))) == [sent, Frame(Kind.READY)]
