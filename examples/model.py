"""A model that corrects words; it has learnt them from Python's own language reference.

    slipway run examples/model.py --text "the interpretr retuns a lst"

A worker reads the reference once, before it takes its first word, and keeps what it has learnt; the next worker starts
from the first one's memory. Words come in batches, and a batch that fails is tried again. How far a word may be off is
a parameter of the class: each number has workers of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from string import ascii_lowercase

import slipway

app = slipway.App("speller")

WORD = re.compile(r"[a-z]+")


@app.cls(enable_memory_snapshot=True, retries=2, max_containers=2)
class Speller:
    """Corrects words that are up to `edits` letters off."""

    edits: int = slipway.parameter(default=1)

    @slipway.enter(snap=True)
    def learn(self) -> None:
        from pydoc_data.topics import topics  # type: ignore[import-not-found, unused-ignore] # has no types

        self.counts = Counter(WORD.findall(" ".join(topics.values()).lower()))

    @slipway.enter()
    def tell(self) -> None:
        print(f"knows {len(self.counts)} words, and looks {self.edits} letters far")

    @slipway.batched(max_batch_size=32, wait_ms=20)
    def correct(self, words: list[str]) -> list[str]:
        """The known word that is most likely meant by each; the word itself where there is none."""
        return [self.best(word.lower()) for word in words]

    def best(self, word: str) -> str:
        near = {word}
        for _ in range(self.edits + 1):
            known = near & self.counts.keys()
            if known:
                return max(known, key=lambda one: (self.counts[one], one))
            near = {other for one in near for other in edited(one)}
        return word


def edited(word: str) -> Iterator[str]:
    """Every text that is one letter off: one less, one more, another one, or two that changed places."""
    for at in range(len(word) + 1):
        left, right = word[:at], word[at:]
        if right:
            yield left + right[1:]
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]
        for letter in ascii_lowercase:
            yield left + letter + right
            if right:
                yield left + letter + right[1:]


@app.local_entrypoint()
def main(text: str = "the interpretr retuns a lst of argumnets") -> None:
    words = WORD.findall(text.lower())
    quick, thorough = Speller(), Speller(edits=2)  # type: ignore[call-arg] # mypy looks at the class as it is written
    corrected = list(quick.correct.map(words))
    print(" ".join(corrected))
    for word, found in zip(words, corrected, strict=True):
        if word == found:
            better = thorough.correct.remote(word)
            if better != word:
                print(f"{word}: perhaps {better}?")
