"""Data sets: every source, preprocessing against NumPy and Pillow written out, and errors that name what is wrong."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from lowbit.data import Dataset, parse_shard, parse_slice
from lowbit.preprocessing import Preprocessing, find_preprocessing

PLAIN = Preprocessing(size=(4, 4), crop=1.0, interpolation="bilinear", channels="RGB", scale=1.0, layout="NHWC")


def png(value: int, height: int = 4, width: int = 4) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def write(root, files: dict[str, bytes], zipped: bool):
    if zipped:
        path = root / "data.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("zipped", [False, True])
def test_class_folders(tmp_path, zipped):
    path = write(tmp_path, {"b/1.png": png(1), "a/2.png": png(2), "a/10.png": png(3), "a/notes.txt": b"x"}, zipped)
    data = Dataset(path, PLAIN)
    assert data.class_names == ["a", "b"]
    assert data.labels.tolist() == [0, 0, 1]
    assert [int(x[0, 0, 0, 0]) for x in data.batches(1)] == [3, 2, 1]  # sorted by name: a/10, a/2, b/1


def test_folders_named_by_numbers_are_the_labels(tmp_path):
    path = write(tmp_path, {f"{k}/x.png": png(k) for k in (0, 2, 10)}, False)
    data = Dataset(path, PLAIN)
    values = [int(x[0, 0, 0, 0]) for x in data.batches(1)]
    assert data.labels.tolist() == values and sorted(values) == [0, 2, 10]


@pytest.mark.parametrize("zipped", [False, True])
def test_labels_csv(tmp_path, zipped):
    table = b"file,label,name\nsub/x.png,7,seven\ny.png,3,three\n"
    data = Dataset(write(tmp_path, {"labels.csv": table, "sub/x.png": png(9), "y.png": png(8)}, zipped), PLAIN)
    assert data.labels.tolist() == [7, 3]
    assert [int(x[0, 0, 0, 0]) for x in data.batches(1)] == [9, 8]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels.csv": b"name,label\n"}, "expected file,label"),
        ({"labels.csv": b"file,label\nx.png,1\n"}, "line 2: no file 'x.png'"),
        ({"labels.csv": b"file,label\nx.png,cat\n", "x.png": png(1)}, "line 2: label 'cat'"),
        ({"labels.csv": b"\xff\xfe\n"}, "labels.csv"),
        ({"a.txt": b""}, "no images"),
        ({"a/x.png": png(1), "b/x.png": png(1), "x.png": png(1)}, "x.png lies outside the class folders"),
    ],
)
def test_bad_folders(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        Dataset(write(tmp_path, files, False), PLAIN)


def test_an_unreadable_image_is_named(tmp_path):
    path = write(tmp_path, {"a/x.png": png(1)[:40], "b/y.png": png(2)}, False)
    with pytest.raises(ValueError, match=r"cannot read the image a/x\.png"):
        next(Dataset(path, PLAIN).batches(2))


def test_npz_names_and_defaults(tmp_path):
    path = tmp_path / "d.npz"
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    np.savez(path, x=x, x_test=x[:2], y_test=np.array([4, 5], np.uint8))
    data = Dataset(f"{path}:x_test,y_test")
    assert data.labels.tolist() == [4, 5] and data.labels.dtype == np.int64
    assert Dataset(path).labels is None
    np.testing.assert_array_equal(np.concatenate(list(Dataset(path).batches(4))), x)
    with pytest.raises(ValueError, match="no array 'z'"):
        Dataset(f"{path}:z")
    with pytest.raises(ValueError, match="no array 'y'"):
        Dataset(f"{path}:x,y")
    np.savez(path, x=x, y=np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="expected 6 integer labels"):
        Dataset(path)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((2, 3)), TypeError, "float64"),
        (np.zeros((0, 3), np.float32), ValueError, r"\(0, 3\)"),
        (np.zeros((2, 5, 5, 2), np.uint8), ValueError, "expected images"),
        (np.array([None, {}]), ValueError, "objects"),
    ],
)
def test_bad_arrays(tmp_path, array, error, message):
    np.save(tmp_path / "d.npy", array, allow_pickle=True)
    with pytest.raises(error, match=message):
        Dataset(tmp_path / "d.npy")


def test_broken_and_missing_files(tmp_path):
    for name in ("a.npz", "a.npy", "a.zip", "a.csv"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nonsense")
        with pytest.raises(ValueError, match=name):
            Dataset(tmp_path / name)
        with pytest.raises(FileNotFoundError):
            Dataset(tmp_path / f"no{name}")


def test_rows_skip_and_shards(tmp_path):
    np.save(tmp_path / "d.npy", np.arange(10, dtype=np.float32)[:, None])

    def rows(**options):
        return np.concatenate(list(Dataset(tmp_path / "d.npy", **options).batches(3)))[:, 0].tolist()

    assert rows(rows=parse_slice("4")) == [0, 1, 2, 3]
    assert rows(rows=parse_slice("::5")) == [0, 5]
    assert rows(skip=parse_slice("::5")) == [1, 2, 3, 4, 6, 7, 8, 9]
    assert rows(shard=parse_shard("1/4")) == [1, 5, 9]
    assert sorted(r for i in range(3) for r in rows(shard=(i, 3))) == list(range(10))
    with pytest.raises(ValueError, match="no rows left"):
        rows(rows=parse_slice("20:"))
    for text in ("", "a", "1:2:3:4", "::0"):
        with pytest.raises(ValueError, match="rows"):
            parse_slice(text)
    for text in ("", "1", "2/2", "-1/2", "a/b"):
        with pytest.raises(ValueError, match="shard"):
            parse_shard(text)


def test_uint8_arrays_are_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    np.save(tmp_path / "d.npy", pixels)
    known = Preprocessing(channels="BGR", scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5,), layout="NCHW")
    got = next(Dataset(tmp_path / "d.npy", known).batches(3))
    wanted = (pixels[..., ::-1].astype(np.float32) * np.float32(1 / 255) - np.float32([0.1, 0.2, 0.3])) / np.float32(
        0.5
    )
    np.testing.assert_array_equal(got, wanted.transpose(0, 3, 1, 2))
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_array_equal(next(Dataset(tmp_path / "d.npy", known).raw_batches(3)), pixels[..., ::-1])
    with pytest.raises(ValueError, match="channels, layout, scale or mean and std missing"):
        next(Dataset(tmp_path / "d.npy").batches(1))
    np.save(tmp_path / "grey.npy", pixels[..., 0])
    grey = next(Dataset(tmp_path / "grey.npy", Preprocessing(channels="L", scale=1.0, layout="NCHW")).batches(3))
    assert grey.shape == (3, 1, 4, 4)


def test_resize_keeps_the_centre():
    image = np.zeros((40, 80, 3), np.uint8)
    image[10:30, 30:50] = 255  # a centred square of half the shorter side
    fit = Preprocessing(size=(16, 16), crop=0.5, interpolation="nearest", channels="RGB").fit(Image.fromarray(image))
    assert fit.shape == (16, 16, 3) and fit.min() == 255  # a crop of 0.5 cuts exactly that square
    scaled = np.asarray(Image.fromarray(image).resize((64, 32), Image.Resampling.BICUBIC))
    fit = Preprocessing(size=(28, 28), crop=0.875, interpolation="bicubic", channels="RGB").fit(Image.fromarray(image))
    np.testing.assert_array_equal(fit, scaled[2:30, 18:46])


def test_preprocessing_is_never_guessed(tmp_path):
    path = write(tmp_path, {"a/x.png": png(1, 9, 9)}, False)
    with pytest.raises(ValueError, match="size, channels, layout, scale or mean and std missing"):
        next(Dataset(path).batches(1))
    with pytest.raises(ValueError, match="crop, interpolation missing"):
        next(Dataset(path, Preprocessing(size=(4, 4), channels="RGB", scale=1.0, layout="NCHW")).batches(1))


def test_toml_round_trip_and_errors(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text('[preprocessing]\nsize = 224\nmean = [1, 2, 3]\nstd = 2\nchannels = "BGR"\nlayout = "NCHW"\n')
    known = Preprocessing.load(path)
    assert known.size == (224, 224) and known.mean == (1.0, 2.0, 3.0) and known.std == (2.0,)
    assert find_preprocessing(tmp_path / "net.onnx") == known == Preprocessing.from_dict(known.to_dict())
    assert find_preprocessing(tmp_path / "other.onnx") is None
    for text, message in [
        ("[preprocessing]\nsiez = 3", "unknown field 'siez'"),
        ("[preprocessing]\nstd = 0", "contains 0"),
        ("[preprocessing]\ncrop = 1.5", "crop 1.5"),
        ("[preprocessing]\nsize = [1, 2, 3]", "size"),
        ('[preprocessing]\nchannels = "rgb"', "channels 'rgb'"),
        ('[preprocessing]\nchannels = "L"\nmean = [1, 2]', "2 values for 1 channels"),
        ("[preprocessing]\nmean = nan", "not finite"),
        ("[other]\n", r"no \[preprocessing\] table"),
        ("[preprocessing", "net.toml"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Preprocessing.load(path)
