"""A look into an ONNX file before ONNX Runtime runs it: which operators its graphs use. No onnx here.

A few bytes of a graph can loop without end, or make a tensor of gigabytes while the file is opened; a regressor needs
neither. Field numbers are those of ``onnx.proto`` (ONNX IR version 3 and later), in Protocol Buffers' wire format.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["REFUSED", "operators"]

REFUSED = frozenset(
    {
        "Bernoulli", "ConstantOfShape", "EyeLike", "If", "Loop", "Multinomial", "OneHot", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Scan", "SequenceMap", "Tile",
    }
)  # fmt: skip
"""Operators that repeat, or make much of little."""

_MODEL_GRAPH, _MODEL_FUNCTIONS, _GRAPH_NODE, _FUNCTION_NODE = 7, 25, 1, 7
_NODE_OPERATOR, _NODE_ATTRIBUTE, _ATTRIBUTE_GRAPHS = 4, 5, (6, 11)


def operators(data: bytes) -> set[str]:
    """The names of all operators in a model's graphs and functions, those of nested graphs among them.

    Raises ``ValueError`` if the bytes are no such message.
    """
    found: set[str] = set()
    view = memoryview(data)
    graphs = [(part, _GRAPH_NODE) for number, part in _fields(view) if number == _MODEL_GRAPH]
    graphs += [(part, _FUNCTION_NODE) for number, part in _fields(view) if number == _MODEL_FUNCTIONS]
    for graph, node_field in graphs:
        for number, node in _fields(graph):
            if number != node_field:
                continue
            for field, part in _fields(node):
                if field == _NODE_OPERATOR:
                    found.add(bytes(part).decode("utf-8", "replace"))
                elif field == _NODE_ATTRIBUTE:
                    graphs += [(inner, _GRAPH_NODE) for f, inner in _fields(part) if f in _ATTRIBUTE_GRAPHS]
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length, by number; numbers themselves are passed over."""
    at, end = 0, len(message)
    while at < end:
        key, at = _number(message, at)
        kind, length = key & 7, 0
        if kind == 0:
            _, at = _number(message, at)
        elif kind == 2:
            length, at = _number(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > end:
            raise ValueError("a field beyond its message")
        if kind == 2:
            yield key >> 3, message[at : at + length]
        at += length


def _number(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number that is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number that does not end")
