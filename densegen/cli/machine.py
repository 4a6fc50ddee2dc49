"""``densegen remember`` and ``densegen doctor``: this machine, and what need not be typed each time."""

from __future__ import annotations

from pathlib import Path

import click

from densegen.console import say

__all__ = ["doctor", "remember"]

PATH = click.Path(path_type=Path)


@click.command(short_help="Keep the model's and the datasets' paths.")
@click.option("--model", "model_path", type=PATH, help="model file that commands shall take without --model")
@click.option("--root", "roots", multiple=True, metavar="NAME=FOLDER", help="where a manifest's dataset lies")
@click.option("--forget", is_flag=True, help="forget everything first")
def remember(model_path: Path | None, roots: tuple[str, ...], forget: bool) -> None:
    """Remember the model file and the folders of datasets, or print what is remembered.

    The environment's DENSEGEN_MODEL and DENSEGEN_ROOT win over what is remembered, options of a command over both. A
    dataset that brings its own model keeps it.

    \b
    reads    --model
    writes   remembered.yaml in the user's folder of settings
    example  densegen remember --model bfm.safetensors --root 300w_lp=300W_LP
    """
    from densegen.errors import ConfigurationError
    from densegen.face.model_file import read_model
    from densegen.remembered import read_remembered, remembered_path
    from densegen.remembered import remember as keep
    from densegen.sources.fit_list import list_fits
    from densegen.sources.manifest import read_named_manifest

    model, known = (None, {}) if forget else read_remembered()
    for given in roots:
        name, equals, folder = given.partition("=")
        if not equals or not Path(folder).is_dir():
            raise ConfigurationError(f"--root {given!r} is not NAME=FOLDER with a folder that exists")
        manifest = read_named_manifest(name)
        if manifest.synthetic is not None:
            raise ConfigurationError(f"--root {given!r}: {name} is drawn when it is built, and needs no folder")
        list_fits(manifest, Path(folder), manifest.default_flip)  # refuses a folder that is not its root
        known[name] = Path(folder)
    if model_path is not None:
        read_model(model_path)
        model = model_path
    if roots or model_path or forget:
        keep(model, known)
    say(f"file     {remembered_path()}")
    say(f"model    {model or '-'}")
    for name, root in sorted(known.items()):
        say(f"root     {name}: {root}")


@click.command(short_help="Say what is installed and what is missing.")
def doctor() -> None:
    """Say what this machine has and lacks: libraries and their extras, the model, the datasets, and their licences.

    \b
    reads    the remembered model and folders
    writes   to standard output
    example  densegen doctor
    """
    from densegen.doctor import describe_datasets, describe_libraries, describe_machine, describe_model, show

    libraries = ("numpy", "scipy", "numba", "h5py", "simplejpeg", "zstandard", "trimesh", "scikit-image", "pydantic")
    show("machine", describe_machine(), say)
    show("libraries", describe_libraries(libraries, ("editor", "cluster", "hub")), say)
    show("model", describe_model(), say)
    show("datasets", describe_datasets(), say)
