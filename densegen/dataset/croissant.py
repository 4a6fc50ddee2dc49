"""The Croissant description of an exported dataset (MLCommons, format 1.0), which tools read to find its fields."""

from __future__ import annotations

from typing import Any

from densegen.conventions import FRAMES, POSE_FIELDS
from densegen.dataset.shard_set import ShardSet

__all__ = ["croissant_of"]

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The vocabulary that every Croissant file of format 1.0 begins with."""

ENCODING = {"webdataset": "application/x-tar", "parquet": "application/x-parquet"}


def croissant_of(dataset: ShardSet, format: str, digests: dict[str, str], sizes: dict[str, int]) -> dict[str, Any]:
    """The description of an export as JSON-LD, plain values.

    format : ``parquet``, whose columns become fields, or ``webdataset``, whose files become fields
    digests, sizes : SHA-256 and bytes of each part, by its path
    """
    name = "-".join(dataset.datasets)
    parts = [
        {
            "@type": "cr:FileObject",
            "@id": part,
            "name": part,
            "contentUrl": part,
            "contentSize": f"{sizes[part]} B",
            "encodingFormat": ENCODING[format],
            "sha256": digests[part],
        }
        for part in digests
    ]
    sets, records = (_parquet if format == "parquet" else _webdataset)(dataset, list(digests))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"{name}-dense-landmarks",
        "description": f"{len(dataset):,} face crops with {len(dataset.index)} dense 3D landmarks of the vertex index "
        f"{dataset.index.name} {dataset.index.version}. Landmarks and keypoints: {FRAMES['crop']}.",
        "version": dataset.index.version,
        "license": "the licences of the photographs and of the morphable model",
        "citeAs": "see the card of the shards",
        "url": f"urn:sha256:{dataset.fingerprint}",
        "distribution": [*parts, *sets],
        "recordSet": records,
    }


def _record_set(name: str, description: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields}


def _file_set(name: str, encoding: str, includes: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": encoding, "includes": includes}


def _field(name: str, kind: str, source: dict[str, Any], description: str, *, repeated: bool = False) -> dict[str, Any]:
    field = {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "description": description,
        "dataType": kind,
        "source": source,
    }
    return field | {"repeated": True} if repeated else field


def _parquet(dataset: ShardSet, parts: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One record a sample, a field a column."""
    points = f"({len(dataset.index)}, 3) float32, {FRAMES['crop']}"

    def column(name: str, kind: str, description: str, **more: Any) -> dict[str, Any]:
        repeated = kind == "sc:Float"
        source = {"fileSet": {"@id": "parts"}, "extract": {"column": name}, **more}
        return _field(f"samples/{name}", kind, source, description, repeated=repeated)

    fields = [
        column("sample_id", "sc:Text", "unique; ends in +mirror for mirror images"),
        column("image", "sc:ImageObject", "the crop, JPEG", transform={"jsonPath": "bytes"}),
        column("landmarks", "sc:Float", points),
        column("keypoints68", "sc:Float", "(68, 3) float32, iBUG order, as landmarks"),
        column("pose", "sc:Float", f"{', '.join(POSE_FIELDS)}, of the fit before it was mirrored here"),
        column("flipped", "sc:Boolean", "whether it is a mirror image"),
        column("mirrored", "sc:Boolean", "whether densegen made the mirror image"),
    ]
    files = _file_set("parts", ENCODING["parquet"], "data/*.parquet")
    return [files], [_record_set("samples", "One record a sample; its split begins the name of its file.", fields)]


def _webdataset(dataset: ShardSet, parts: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A record set for each file of a sample; the key before the first dot joins them."""
    sets, records = [], []
    for name, suffix, encoding, description in (
        ("image", "jpg", "image/jpeg", "the crop"),
        ("landmarks", "landmarks.npy", "application/octet-stream",
         f"NumPy file of ({len(dataset.index)}, 3) float32, {FRAMES['crop']}"),
        ("keypoints68", "keypoints68.npy", "application/octet-stream",
         "NumPy file of (68, 3) float32, iBUG order, as landmarks"),
        ("about", "json", "application/json", f"sample_id, split, flipped, mirrored, pose ({', '.join(POSE_FIELDS)})"),
    ):  # fmt: skip
        files = f"{name}-files"
        archives = {"containedIn": [{"@id": part} for part in parts]}
        sets.append(_file_set(files, encoding, f"*.{suffix}") | archives)
        key = {
            "fileSet": {"@id": files},
            "extract": {"fileProperty": "filename"},
            "transform": {"regex": r"^([^.]+)\."},
        }
        fields = [_field(f"{name}/key", "sc:Text", key, "the sample")]
        if suffix in ("jpg", "json"):
            content = {"fileSet": {"@id": files}, "extract": {"fileProperty": "content"}}
            kind = "sc:ImageObject" if suffix == "jpg" else "sc:Text"
            fields.append(_field(f"{name}/content", kind, content, description))
        records.append(_record_set(name, description, fields))
    return sets, records
