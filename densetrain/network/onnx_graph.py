"""A look into an ONNX file before ONNX Runtime runs it: what a regressor has no use for. No onnx here.

A few bytes of a graph can loop without end, or make a tensor of gigabytes while the file is opened, when what follows
from constants alone is computed; a regressor needs neither. Field numbers are those of ``onnx.proto`` (ONNX IR version
3 and later), in Protocol Buffers' wire format.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["metadata", "refused"]

REFUSED = frozenset(
    {
        "Bernoulli", "ConstantOfShape", "EyeLike", "If", "Loop", "Multinomial", "OneHot", "RandomNormal",
        "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Scan", "SequenceMap", "Tile",
    }
)  # fmt: skip
"""Operators that repeat, or make much of little."""

MODEST = frozenset(
    {
        "Abs", "Cast", "Constant", "DequantizeLinear", "Flatten", "Identity", "Neg", "QuantizeLinear", "Reciprocal",
        "Reshape", "Shape", "Slice", "Split", "Sqrt", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that give no more numbers than they get; of constants alone others may make much of little, even a product:
that of a column and a row is a square."""

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_KEY, _VALUE = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_SPARSE, _FUNCTION_NODE = 1, 5, 11, 15, 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (6, 11), (22, 23)
_VALUE_NAME, _TENSOR_NAME = 1, 8


def refused(data: bytes) -> set[str]:
    """What a model's graphs and functions, those of nested graphs among them, use of ``REFUSED``, on constants alone of
    all but ``MODEST``, and of sparse constants, in words.

    Raises ``ValueError`` if the bytes are no such message.
    """
    found: set[str] = set()
    view = memoryview(data)
    graphs = [(part, _GRAPH_NODE) for number, part in _fields(view) if number == _MODEL_GRAPH]
    graphs += [(part, _FUNCTION_NODE) for number, part in _fields(view) if number == _MODEL_FUNCTIONS]
    for graph, node_field in graphs:
        live = set[str]()  # what follows from the graph's inputs; those of a function may be constants
        if node_field == _GRAPH_NODE:
            live = _names(graph, _GRAPH_INPUT, _VALUE_NAME) - _names(graph, _GRAPH_INITIALIZER, _TENSOR_NAME)
            if any(number == _GRAPH_SPARSE for number, _ in _fields(graph)):
                found.add("a sparse constant")
        for number, node in _fields(graph):
            if number != node_field:
                continue
            operator, inputs, outputs = "", set[str](), set[str]()
            for field, part in _fields(node):
                if field == _NODE_OPERATOR:
                    operator = _text(part)
                elif field == _NODE_INPUT:
                    inputs.add(_text(part))
                elif field == _NODE_OUTPUT:
                    outputs.add(_text(part))
                elif field == _NODE_ATTRIBUTE:
                    graphs += [(inner, _GRAPH_NODE) for f, inner in _fields(part) if f in _ATTRIBUTE_GRAPHS]
                    if any(f in _ATTRIBUTE_SPARSE for f, _ in _fields(part)):
                        found.add("a sparse constant")
            if inputs & live:
                live |= outputs
            elif operator not in MODEST:
                found.add(f"{operator} of constants")
            if operator in REFUSED:
                found.add(operator)
    return found


def metadata(data: bytes) -> dict[str, str]:
    """A model's properties: what its maker says of it.

    Raises ``ValueError`` if the bytes are no such message.
    """
    found = {}
    for number, part in _fields(memoryview(data)):
        if number == _MODEL_METADATA:
            entry = dict(_fields(part))
            found[_text(entry.get(_KEY, part[:0]))] = _text(entry.get(_VALUE, part[:0]))
    return found


def _names(graph: memoryview, number: int, name: int) -> set[str]:
    """The names of the messages in a field of a graph."""
    messages = [part for field, part in _fields(graph) if field == number]
    return {_text(part) for message in messages for field, part in _fields(message) if field == name}


def _text(part: memoryview) -> str:
    return bytes(part).decode("utf-8", "replace")


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
