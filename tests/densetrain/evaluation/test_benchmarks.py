from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from densegen.errors import ConfigurationError, FormatError
from densegen.ibug68 import AFLW21
from densetrain.cli import main
from densetrain.evaluation.benchmarks import aflw, aflw2000, read_predictions
from densetrain.evaluation.metrics import points21, yaw_bins

REALDATA = os.environ.get("DENSE_REALDATA")

FACES = 30


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    """Portraits as AFLW2000-3D pairs."""
    root = tmp_path / "aflw2000"
    shutil.copytree(corpus / "SYNTH", root)
    return root


@pytest.fixture
def protocol(folder: Path, tmp_path: Path) -> Path:
    """Public label files for the same faces; the re-annotated labels are a pixel off in x, and count from 0."""
    out = tmp_path / "protocol"
    out.mkdir()
    benchmark = aflw2000(folder, None)
    names = [f"{name}.jpg" for name in benchmark.names]
    (out / "AFLW2000-3D_crop.list").write_text("\n".join(reversed(names)))
    labels = benchmark.raw[::-1].transpose(0, 2, 1).astype(np.float32)
    np.save(out / "AFLW2000-3D.pts68.npy", np.concatenate([labels, labels[:, :1]], axis=1))
    np.save(out / "AFLW2000-3D-Reannotated.pts68.npy", labels - np.float32([[0], [1]]))
    np.save(out / "AFLW2000-3D.pose.npy", benchmark.yaw_deg[::-1].astype(np.float32))
    np.save(out / "AFLW2000-3D-new.pose.npy", np.zeros(len(names), np.float32))
    return out


def test_the_truth_itself_has_no_error(folder: Path) -> None:
    benchmark = aflw2000(folder, None)
    assert benchmark.errors(benchmark.truth).max() == 0
    assert benchmark.errors(benchmark.raw, "label files").max() == 0
    # Label files count from 1: read as pixels from 0 they are a diagonal off.
    shifted = benchmark.errors(benchmark.raw)
    np.testing.assert_allclose(shifted, 100 * np.sqrt(2) / benchmark.normaliser)


def test_the_true_points_lie_on_the_photographs(folder: Path, corpus: Path) -> None:
    from densegen.dataset.pipeline import mesh_in_image
    from densegen.face.model_file import read_model
    from densegen.sources.fits import read_fit

    model, benchmark = read_model(corpus / "model.safetensors"), aflw2000(folder, None)
    image = next(iter(benchmark.read_images()))
    mesh = mesh_in_image(model, read_fit(folder / f"{benchmark.names[0]}.mat"), image.shape[0])
    np.testing.assert_allclose(benchmark.truth[0], mesh[model.keypoints68][:, :2], atol=1e-2)


def test_label_files_are_matched_by_name(folder: Path, protocol: Path) -> None:
    own, listed = aflw2000(folder, None), aflw2000(folder, protocol)
    np.testing.assert_allclose(own.truth, listed.truth, atol=1e-3)
    np.testing.assert_allclose(own.yaw_deg, listed.yaw_deg, atol=1e-4)
    other = aflw2000(folder, protocol, "reannotated", "new-pose")
    assert (other.yaw_deg == 0).all()
    np.testing.assert_allclose(other.truth - own.truth, np.broadcast_to([1.0, 0.0], own.truth.shape), atol=1e-3)
    assert "labels reannotated, yaw new-pose" in str(other.protocol)
    assert re.search(r"16 of 2,000 images \([0-9a-f]{8}\)", str(other.protocol))


def test_results_of_other_faces_stand_in_other_tables(folder: Path, tmp_path: Path) -> None:
    names = aflw2000(folder, None).names
    parts = []
    for number, part in enumerate((names[:8], names[8:], names[:8])):
        root = tmp_path / str(number)
        root.mkdir()
        for name in part:
            for suffix in (".jpg", ".mat"):
                shutil.copy(folder / f"{name}{suffix}", root)
        parts.append(aflw2000(root, None).protocol)
    one, other, again = parts
    assert one.faces == other.faces == 8
    assert one == again
    assert one != other
    assert one.title != other.title


def test_predictions_are_matched_by_name_and_checked(folder: Path, tmp_path: Path) -> None:
    benchmark = aflw2000(folder, None)
    path = tmp_path / "p.npz"
    names = np.array([f"{name}.jpg" for name in benchmark.names])
    np.savez(path, names=names[::-1], landmarks=benchmark.truth[::-1])
    assert (read_predictions(path, benchmark.names) == benchmark.truth).all()
    np.savez(path, names=np.char.encode(names), landmarks=benchmark.truth)
    assert (read_predictions(path, benchmark.names) == benchmark.truth).all()
    for change, words in [
        ({"names": names[1:], "landmarks": benchmark.truth[1:]}, "lacks 1 of 16 faces"),
        ({"names": names, "landmarks": benchmark.truth[:, :50]}, "expected \\(n, 68"),
        ({"names": names, "landmarks": benchmark.truth * np.nan}, "not finite"),
        ({"names": names[[0] * 16], "landmarks": benchmark.truth}, "has a face twice: SYNTH"),
        ({"landmarks": benchmark.truth}, "not a file of predictions: names"),
        ({"names": names, "landmarks": names}, "'landmarks' no numbers"),
        ({"names": np.arange(16), "landmarks": benchmark.truth}, "'names' are no list of words"),
    ]:
        np.savez(path, **change)
        with pytest.raises(FormatError, match=words):
            read_predictions(path, benchmark.names)
    path.write_text("hello")
    with pytest.raises(FormatError, match="not a readable file of predictions"):
        read_predictions(path, benchmark.names)


def test_a_folder_with_missing_files_is_refused(folder: Path, protocol: Path, tmp_path: Path) -> None:
    (folder / "SYNTH_00001_1.jpg").unlink()
    with pytest.raises(ConfigurationError, match="lacks 1 of 16 images, the first is SYNTH_00001_1"):
        aflw2000(folder, None)
    with pytest.raises(ConfigurationError, match="is no folder of AFLW2000-3D"):
        aflw2000(tmp_path, None)
    with pytest.raises(ConfigurationError, match="give their --protocol folder"):
        aflw2000(folder, None, "reannotated")
    (protocol / "AFLW2000-3D.pose.npy").unlink()
    with pytest.raises(ConfigurationError, match="does not exist: it is one of the benchmark's public files"):
        aflw2000(None, protocol)
    np.save(protocol / "AFLW2000-3D.pts68.npy", np.zeros((16, 3, 50)))
    with pytest.raises(FormatError, match=r"shape \(16, 3, 50\), expected \(16, 2, 68\)"):
        aflw2000(None, protocol, yaw="new-pose")


def test_damaged_label_files_are_refused(folder: Path, protocol: Path) -> None:
    labels = protocol / "AFLW2000-3D.pts68.npy"
    whole = labels.read_bytes()
    for data, words in [
        (whole[:200], "not a readable NumPy file"),
        (b"PK\x03\x04 no archive", "not a readable NumPy file"),
        (whole.replace(b"(16, ", b"(99999999999, "), "not a readable NumPy file"),
        (b"", "not a readable NumPy file"),
    ]:
        labels.write_bytes(data)
        with pytest.raises(FormatError, match=words):
            aflw2000(folder, protocol)
    np.save(labels, np.zeros((32, 2, 68)))
    with pytest.raises(FormatError, match=r"shape \(32, 2, 68\), expected \(16, 2, 68\)"):
        aflw2000(folder, protocol)
    names = protocol / "AFLW2000-3D_crop.list"
    for content, words in [(b"\xff\xfe\x00", "not UTF-8 text"), (b"a.jpg a.jpg", "twice"), (b"", "no face")]:
        names.write_bytes(content)
        with pytest.raises(FormatError, match=words):
            aflw2000(None, protocol)


def test_options_that_a_benchmark_does_not_read_are_refused(folder: Path, tmp_path: Path) -> None:
    def fails(*arguments: object) -> str:
        result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "--labels means nothing to the benchmark aflw" in fails(
        "x", "--benchmark", "aflw", "--labels", "original", "--protocol", tmp_path
    )
    assert "--root means nothing to the benchmark shards" in fails("x", "--shards", tmp_path, "--root", folder)
    assert "--box means nothing to the benchmark aflw2000-3d with --predictions" in fails(
        "--predictions", "p.npz", "--benchmark", "aflw2000-3d", "--root", folder, "--box", "cascade"
    )
    assert "--threshold is a number" in fails("x", "--shards", tmp_path, "--threshold", "nan")


def test_aflw_counts_visible_points_in_the_crops_frame(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points68 = generator.uniform(300, 500, (FACES, 68, 2))
    truth = points21(points68)
    truth[:, 3] = -1
    roi = np.tile([250.0, 260.0, 550.0, 560.0], (FACES, 1))
    (tmp_path / "AFLW_GT_crop.list").write_text("\n".join(f"f{n}.jpg" for n in range(FACES)))
    np.save(tmp_path / "AFLW_GT_pts68.npy", points68.transpose(0, 2, 1))
    np.save(tmp_path / "AFLW_GT_pts21.npy", truth.transpose(0, 2, 1))
    np.save(tmp_path / "AFLW_GT_crop_roi_box.npy", roi)
    np.save(tmp_path / "AFLW_GT_crop_yaws.npy", np.linspace(-90, 90, FACES))
    benchmark = aflw(None, tmp_path)
    assert len(AFLW21) == benchmark.truth.shape[1] == 21
    # The corner of the crop is 250, 260 in the labels; its first pixel's centre lies half a crop's pixel inside.
    in_crop = (points68 - roi[:, None, :2]) * 120 / 300 - 0.5
    assert benchmark.errors(in_crop).max() < 1e-9
    assert benchmark.readings == ("geometric", "public script")
    # The public script calls that pixel 1, half a crop's pixel too far: 1.25 of the labels' pixels in x and in y.
    np.testing.assert_allclose(benchmark.errors(in_crop, "public script"), 100 * 1.25 * 2**0.5 / benchmark.normaliser)
    assert benchmark.errors(in_crop - 0.5, "public script").max() < 1e-9
    off = benchmark.errors(in_crop + [120 / 300, 0])
    np.testing.assert_allclose(off, 100 / benchmark.normaliser)
    np.testing.assert_allclose(benchmark.boxes[:, :2], in_crop.min(axis=1))
    drawn = points21(in_crop)[2].astype(np.float64)
    drawn[3] = np.nan  # not visible
    np.testing.assert_allclose(benchmark.truth_in_image(2), drawn)
    with pytest.raises(ConfigurationError, match="images are needed"):
        next(benchmark.read_images())


@pytest.mark.skipif(REALDATA is None, reason="DENSE_REALDATA is not set: the public label files are not here")
@pytest.mark.parametrize(
    ("labels", "yaw", "known"),
    [
        ("original", "pose", (2.8116, 3.2341, 4.0962, 3.3806)),
        ("original", "new-pose", (2.8136, 3.2864, 4.2412, 3.4471)),
        ("reannotated", "pose", (2.7899, 3.1978, 4.2006, 3.3961)),
        ("reannotated", "new-pose", (2.7920, 3.2597, 4.3710, 3.4742)),
    ],
)
def test_the_known_answers_of_the_public_labels(labels: str, yaw: str, known: tuple[float, ...]) -> None:
    other = {"original": "reannotated", "reannotated": "original"}[labels]
    arguments = ["evaluate", "--benchmark", "aflw2000-3d", "--protocol", f"{REALDATA}/aflw2000_protocol"]
    printed = CliRunner().invoke(main, [*arguments, "--labels", labels, "--yaw", yaw, "--predictions", other])
    assert printed.exit_code == 0, printed.output
    figures = dict(
        re.findall(r"^(?:NME, )?(?:yaw )?(.+?)(?:, [\d,]+ faces)?  +([\d.]+)$", printed.output, re.MULTILINE)
    )
    for name, value in zip(("[0, 30]", "(30, 60]", "(60, 90]", "mean of the bins"), known, strict=True):
        assert figures[name] == f"{value:.4f}"
    if (labels, yaw) == ("original", "pose"):
        assert (figures["std of the bins"], figures["all images"]) == ("0.5346", "3.0884")


def test_an_odd_scale_and_angles_leave_no_face_out(tmp_path: Path, corpus: Path) -> None:
    """A negative scale, a yaw beyond a turn: points and yaw are all that is asked for, and bins follow the file."""
    from scipy.io import savemat

    points = np.concatenate([np.random.default_rng(0).uniform(100, 300, (2, 68)), np.zeros((1, 68))])
    for name, yaw, scale in (("image1", 3.28, -0.00149), ("image2", -6.13, 0.0017), ("image3", 0.1, 0.0)):
        pose = np.array([[15.6, yaw, -16.6, 254, 163, -44, scale]])
        savemat(tmp_path / f"{name}.mat", {"Pose_Para": pose, "pt3d_68": points})
        shutil.copy(corpus / "SYNTH/SYNTH_00000_0.jpg", tmp_path / f"{name}.jpg")
    (tmp_path / "._image1.mat").write_bytes(b"macOS")
    (tmp_path / "._image1.jpg").write_bytes(b"macOS")
    benchmark = aflw2000(tmp_path, None)
    assert benchmark.names == ("image1", "image2", "image3")
    np.testing.assert_allclose(benchmark.yaw_deg, np.rad2deg([3.28, -6.13, 0.1]))
    assert yaw_bins(benchmark.yaw_deg).tolist() == [2, 2, 0]


def test_both_readings_of_labels_that_count_from_zero(corpus: Path) -> None:
    """The public script adds 1 to predictions: the original labels count from 1, the reannotated ones from 0."""
    original = aflw2000(corpus / "SYNTH", None)
    assert original.readings == ("geometric",)
    assert original.errors(original.truth).max() == 0
    zero = dataclasses.replace(original, raw=original.truth)
    assert zero.readings == ("geometric", "public script")
    assert zero.errors(zero.truth).max() == 0
    shifted = zero.errors(zero.truth, "public script")
    np.testing.assert_allclose(shifted, 100 * np.sqrt(2) / zero.normaliser)
