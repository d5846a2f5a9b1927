"""Which node of the deployment a node of the new graph continues.

Nothing here waits, sleeps, opens or spawns. Most nodes are found by address. Layers are matched image by image, as the
lines of two texts would be, so that a step put in the middle makes one new layer and not a new one at every position.
"""

from __future__ import annotations

from difflib import SequenceMatcher

from attrs import frozen

from .encode import digest_of
from .nodes import Graph, LayerSpec, Node
from .titles import image_of


@frozen(kw_only=True)
class Alignment:
    """`pairs`: address in the new graph → the old node. `gone`: old nodes that nothing continues, in their order."""

    pairs: dict[str, Node]
    gone: tuple[Node, ...]


def align(old: Graph, new: Graph) -> Alignment:
    pairs: dict[str, Node] = {}
    old_images, new_images = images_of(old), images_of(new)
    for name, was in _image_pairs(old_images, new_images):
        pairs.update(_match_layers(old_images[was], new_images[name]))
    by_address = {node.address: node for node in old.nodes if image_of(node.address) is None}
    loose: list[Node] = []
    for node in new.nodes:
        if image_of(node.address) is None:
            found = by_address.pop(node.address, None)
            if found is None:
                loose.append(node)
            else:
                pairs[node.address] = found
    _match_renamed(by_address, loose, pairs)
    kept = {node.address for node in pairs.values()}
    return Alignment(pairs=pairs, gone=tuple(node for node in old.nodes if node.address not in kept))


def images_of(graph: Graph) -> dict[str, list[Node]]:
    """The nodes of each image from the base up."""
    images: dict[str, list[Node]] = {}
    for node in graph.nodes:
        place = image_of(node.address)
        if place is not None:
            images.setdefault(place[0], []).append(node)
    return images


def _image_pairs(old: dict[str, list[Node]], new: dict[str, list[Node]]) -> list[tuple[str, str]]:
    """Images of one name; then those left over that are the same under another name."""
    pairs = [(name, name) for name in new if name in old]
    by_tip: dict[str, list[str]] = {}
    for name, nodes in old.items():
        if name not in new:
            by_tip.setdefault(nodes[-1].digest, []).append(name)
    for name, nodes in new.items():
        if name not in old and by_tip.get(nodes[-1].digest):
            pairs.append((name, by_tip[nodes[-1].digest].pop(0)))
    return pairs


def _match_layers(old: list[Node], new: list[Node]) -> dict[str, Node]:
    """The base to the base; equal steps to equal steps; what is left between two matches by kind of step, in order."""
    pairs = {new[0].address: old[0]}
    before, after = old[1:], new[1:]
    old_keys, new_keys = [digest_of(node.spec) for node in before], [digest_of(node.spec) for node in after]
    matcher = SequenceMatcher(None, old_keys, new_keys, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            pairs.update((now.address, was) for now, was in zip(after[j1:j2], before[i1:i2], strict=True))
        elif tag == "replace":
            pairs.update(_match_kinds(before[i1:i2], after[j1:j2]))
    return pairs


def _match_kinds(old: list[Node], new: list[Node]) -> dict[str, Node]:
    matcher = SequenceMatcher(None, [_kind(node) for node in old], [_kind(node) for node in new], autojunk=False)
    pairs: dict[str, Node] = {}
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            pairs[new[block.b + offset].address] = old[block.a + offset]
    return pairs


def _kind(node: Node) -> str:
    assert isinstance(node.spec, LayerSpec)
    step = node.spec.step
    return f"{step.KIND} {getattr(step, 'what', '')}"


def _match_renamed(old: dict[str, Node], new: list[Node], pairs: dict[str, Node]) -> None:
    """Bundles that hold the same files under another name: their name is only what they are called on screen."""
    by_digest: dict[str, list[str]] = {}
    for address, node in old.items():
        if node.spec.KIND == "bundle":
            by_digest.setdefault(node.digest, []).append(address)
    for node in new:
        if node.spec.KIND == "bundle" and by_digest.get(node.digest):
            pairs[node.address] = old[by_digest[node.digest].pop(0)]
