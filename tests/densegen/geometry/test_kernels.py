"""What all kernels must keep to."""

from __future__ import annotations

import ast
from pathlib import Path

import densegen

ROOT = Path(densegen.__file__).parent


def borrowed(tree: ast.Module) -> set[str]:
    """What the kernels of a module use of other modules of densegen."""
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("densegen")
        for alias in node.names
    }
    kernels = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and {ast.unparse(decorator) for decorator in node.decorator_list} & {"kernel", "loose_kernel"}
    ]
    used = {
        node.id for kernel in kernels for part in kernel.body for node in ast.walk(part) if isinstance(node, ast.Name)
    }
    return used & imported


def test_no_kernel_uses_another_file() -> None:
    """numba would keep the old one inside after a change: its cache looks at the kernel's own file alone."""
    sources = {path: path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    with_kernels = {path: ast.parse(text) for path, text in sources.items() if "kernel\ndef " in text}
    assert len(with_kernels) > 8
    assert {path.name: borrowed(tree) for path, tree in with_kernels.items() if borrowed(tree)} == {}


def test_what_is_borrowed_is_seen() -> None:
    text = "from densegen.a import f, g\n@loose_kernel\ndef k(x):\n    return f(x)\ndef h(x):\n    return g(x)\n"
    assert borrowed(ast.parse(text)) == {"f"}
