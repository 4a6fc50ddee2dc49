"""``densegen manifests`` and ``densegen manifest``: descriptions of datasets."""

from __future__ import annotations

from pathlib import Path

import click

from densegen.console import counted, say

__all__ = ["manifest", "manifests"]

PATH = click.Path(path_type=Path)


@click.command(short_help="List the manifests that come along, or print one.")
@click.argument("name", required=False)
def manifests(name: str | None) -> None:
    """List the manifests that come with densegen, or print the one called NAME, to begin one's own with.

    \b
    reads    nothing
    writes   to standard output
    example  densegen manifests 300w_lp > mine.yaml
    """
    from densegen.sources.manifest import manifest_text_of, named_manifests, read_manifest

    if name is not None:
        say(manifest_text_of(name).rstrip("\n"))
        return
    for name in named_manifests():
        manifest = read_manifest(name)
        say(f"{name:14} {sum(s.fits for s in manifest.subsets):>7,} fits  {manifest.title}")


@click.group()
def manifest() -> None:
    """Write a manifest for a folder of fits."""


@manifest.command("init", short_help="Write a manifest for a folder of fits.")
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, help="file to write  [default: FOLDER/manifest.yaml]")
@click.option("--name", help="of the dataset  [default: the folder's]")
def init_manifest(folder: Path, out: Path | None, name: str | None) -> None:
    """Write a manifest for the fits (*.mat) in FOLDER and below it, and say what is missing.

    \b
    reads    FOLDER/**/*.mat and the photographs beside them
    writes   FOLDER/manifest.yaml, or --out
    example  densegen manifest init faces
    """
    from densegen.errors import ConfigurationError
    from densegen.outputs import check_output
    from densegen.sources.manifest_init import manifest_of_folder, manifest_text, write_manifest

    path = out or folder / "manifest.yaml"
    check_output(path, holds="manifest")
    found = manifest_of_folder(folder, name)
    if path.exists() and path.read_bytes() != manifest_text(found.manifest).encode():
        raise ConfigurationError(f"{path} exists and says something else: move it away, or choose another --out")
    for line in found.notes:
        say(line, err=True)
    write_manifest(found.manifest, path)
    subsets = found.manifest.subsets
    say(f"{path}: {counted(sum(subset.fits for subset in subsets), 'fit')} in {counted(len(subsets), 'folder')}")
