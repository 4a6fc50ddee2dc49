"""Optional libraries: which extra brings one, and the command that installs it from where densegen came from."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlsplit

__all__ = ["EXTRAS_OF", "install_line"]

EXTRAS_OF = {
    "cv2": ("video", "detect"),
    "dask": ("cluster",),
    "distributed": ("cluster",),
    "lightning": ("train",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
    "onnxscript": ("export",),
    "pyarrow": ("hub",),
    "tensorboard": ("train",),
    "timm": ("timm",),
    "torch": ("train",),
    "torchvision": ("train",),
    "viser": ("editor",),
}
"""The extras that bring each library that densegen can do without; the first is the one to install."""


def install_line(extra: str) -> str:
    """The pip command for an extra. From a checkout or a repository that is that place (PEP 610): a registry may have
    something else of the same name.
    """
    try:
        source = json.loads(distribution("densegen").read_text("direct_url.json") or "{}")
        url = str(source["url"])
    except (PackageNotFoundError, ValueError, KeyError, TypeError):
        return f"pip install 'densegen[{extra}]'"
    if "vcs_info" in source:
        known = source["vcs_info"]
        revision = known.get("requested_revision") or known.get("commit_id")
        place = f"{known['vcs']}+{url}{f'@{revision}' if revision else ''}"
        below = f"#subdirectory={source['subdirectory']}" if "subdirectory" in source else ""
        return f"pip install 'densegen[{extra}] @ {place}{below}'"
    if "dir_info" not in source:
        return f"pip install 'densegen[{extra}] @ {url}'"
    editable = "--editable " if source["dir_info"].get("editable") else ""
    return f"pip install {editable}'{unquote(urlsplit(url).path)}[{extra}]'"
