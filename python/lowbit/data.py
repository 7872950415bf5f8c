"""Calibration and evaluation data as batches for a network: folders and zip files of images, ``.npz`` and ``.npy``.

Images and uint8 arrays go through a `lowbit.preprocessing.Preprocessing`; float32 arrays are network inputs and are
taken as they are.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lowbit.preprocessing import CHANNELS, Preprocessing

Array = NDArray[Any]
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def parse_slice(text: str) -> slice:
    """``start:stop:step`` as Python has it, or ``n`` for the first n.

    Example:
        >>> parse_slice("100"), parse_slice("::5")
        (slice(None, 100, None), slice(None, None, 5))
    """
    parts = text.split(":")
    try:
        numbers = [int(p) if p.strip() else None for p in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or numbers == [None] or (len(numbers) == 3 and numbers[2] == 0):
        raise ValueError(f"rows {text!r} is not n, start:stop or start:stop:step")
    return slice(numbers[0]) if len(numbers) == 1 else slice(*numbers)


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n``, the part i of n, counted from 0.

    Example:
        >>> parse_shard("0/4")
        (0, 4)
    """
    index, _, count = text.partition("/")
    if not (index.strip().isdecimal() and count.strip().isdecimal() and int(index) < int(count)):
        raise ValueError(f"shard {text!r} is not i/n with 0 <= i < n, such as 0/4")
    return int(index), int(count)


class Dataset:
    """A calibration or evaluation set, read batch by batch.

    Args:
        source: Folder or ``.zip`` of images (class folders, or a ``labels.csv`` with header ``file,label``), ``.npz``
            (``file.npz:x_test,y_test`` names the arrays; default x and y) or ``.npy``.
        preprocessing: What the network expects of images; not needed for float32 arrays.
        rows: Which rows to take.
        skip: Which rows to leave out, so that what calibrated can be kept from evaluating.
        shard: (i, n): of the rows taken, every n-th from the i-th, so that shards look alike where files lie by class.

    Raises:
        ValueError: Naming the source and what is wrong with it.
        TypeError: An array of another dtype than uint8 or float32.
        FileNotFoundError: No such source.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
        >>> np.savez(path, x=np.zeros((5, 3), np.float32), y=np.arange(5))
        >>> [batch.shape for batch in Dataset(path).batches(2)], Dataset(path).labels.tolist()
        ([(2, 3), (2, 3), (1, 3)], [0, 1, 2, 3, 4])
    """

    def __init__(
        self,
        source: str | Path,
        preprocessing: Preprocessing | None = None,
        *,
        rows: slice | None = None,
        skip: slice | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self.source = str(source)
        self.preprocessing = preprocessing or Preprocessing()
        self._array: Array | None = None
        self._read: Callable[[int], bytes] | None = None
        self._names: list[str] = []
        self.class_names: list[str] | None = None
        labels = self._open(source)
        index = np.arange(len(self._array) if self._array is not None else len(self._names))
        if rows is not None:
            index = index[rows]
        if skip is not None:
            total = len(self._array) if self._array is not None else len(self._names)
            index = index[~np.isin(index, np.arange(total)[skip])]
        if shard is not None:
            index = index[shard[0] :: shard[1]]
        self.index: NDArray[np.int64] = index.astype(np.int64)
        self.labels: NDArray[np.int64] | None = None if labels is None else labels[index]
        if not len(self.index):
            raise ValueError(f"{self.source}: no rows left (rows={rows}, skip={skip}, shard={shard})")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def raw(self) -> bool:
        """True for images (uint8), False for float32 arrays, which are network inputs already."""
        return self._array is None or self._array.dtype == np.uint8

    def batches(self, size: int) -> Iterator[Array]:
        """Network inputs, float32, `size` rows at a time, the last batch perhaps smaller."""
        if self.raw:
            fields_needed = ("size", "channels", "layout") if self._array is None else ("channels", "layout")
            self.preprocessing.need(*fields_needed, what=self.source, values=True)
        for pixels in self._pixels(size):
            yield self.preprocessing.normalise(pixels) if self.raw else pixels

    def raw_batches(self, size: int) -> Iterator[Array]:
        """uint8 pixels (n, h, w, c), for a net with the preprocessing folded in."""
        if not self.raw:
            raise ValueError(f"{self.source}: float32 network inputs, where a net with raw uint8 input needs images")
        return self._pixels(size)

    def _pixels(self, size: int) -> Iterator[Array]:
        if size < 1:
            raise ValueError(f"batch size {size}")
        for start in range(0, len(self.index), size):
            rows = self.index[start : start + size]
            if self._array is None:
                yield np.stack([self._image(int(i)) for i in rows])
            elif self.raw:
                yield np.stack([self._fit_pixels(self._array[i]) for i in rows])
            else:
                yield np.ascontiguousarray(self._array[rows])

    def _image(self, row: int) -> NDArray[np.uint8]:
        image_module = _pillow()
        assert self._read is not None
        name = self._names[row]
        self.preprocessing.need("size", "channels", "layout", what=f"{self.source}: {name}")
        try:
            with image_module.open(io.BytesIO(self._read(row))) as image:
                return self.preprocessing.fit(image)
        except (OSError, SyntaxError, image_module.DecompressionBombError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.source}: cannot read the image {name}: {error}") from None

    def _fit_pixels(self, pixels: Array) -> Array:
        """One (h, w) or (h, w, c) uint8 array; through Pillow only where its size or channels differ."""
        channels = self.preprocessing.channels
        self.preprocessing.need("channels", what=self.source)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        have, want = pixels.shape, self.preprocessing.size or pixels.shape[:2]
        if have[:2] == tuple(want) and have[2] == CHANNELS[cast(str, channels)]:
            return pixels[:, :, ::-1] if channels == "BGR" else pixels
        image = _pillow().fromarray(pixels[:, :, 0] if have[2] == 1 else pixels)
        return replace(self.preprocessing, size=(int(want[0]), int(want[1]))).fit(image)

    def _open(self, source: str | Path) -> NDArray[np.int64] | None:
        text = str(source)
        head, _, names = text.rpartition(":")
        if head and Path(head).suffix.lower() == ".npz":
            return self._open_npz(Path(head), names.split(","))
        path = Path(text)
        if path.is_dir():
            files = sorted(str(p.relative_to(path).as_posix()) for p in path.rglob("*") if p.is_file())
            return self._open_images(files, lambda name: (path / name).read_bytes())
        if not path.exists():
            raise FileNotFoundError(f"{text}: no such file or folder")
        if path.suffix.lower() == ".zip":
            try:
                archive = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{text}: {error}") from None
            return self._open_images([n for n in archive.namelist() if not n.endswith("/")], archive.read)
        if path.suffix.lower() == ".npz":
            return self._open_npz(path, ["x", "y"], optional=True)
        if path.suffix.lower() == ".npy":
            try:
                self._array = self._checked(np.load(path, mmap_mode="r", allow_pickle=False), text)
            except (ValueError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(f"{text}: {str(error).removeprefix(f'{text}: ')}") from None
            return None
        raise ValueError(f"{text}: not a folder, .zip, .npz or .npy")

    def _open_npz(self, path: Path, names: list[str], optional: bool = False) -> NDArray[np.int64] | None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            with np.load(path, allow_pickle=False) as archive:
                if names[0] not in archive.files or (len(names) > 1 and names[1] not in archive.files and not optional):
                    missing = [n for n in names if n not in archive.files]
                    raise ValueError(
                        f"{path}: no array {missing[0]!r}; it has {', '.join(archive.files)}: "
                        f"say {path.name}:images,labels"
                    )
                self._array = self._checked(archive[names[0]], f"{path}:{names[0]}")
                labels = archive[names[1]] if len(names) > 1 and names[1] in archive.files else None
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise ValueError(f"{path}: {error}") from None
        if labels is None:
            return None
        if labels.shape != self._array.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{path}:{names[1]} is {labels.dtype} {labels.shape}; expected {len(self._array)} integer labels"
            )
        return cast(NDArray[np.int64], labels.astype(np.int64))

    @staticmethod
    def _checked(array: Array, where: str) -> Array:
        if array.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
            raise TypeError(f"{where} is {array.dtype}; expected uint8 images or float32 network inputs")
        if array.ndim < 2 or not array.size:
            raise ValueError(f"{where} has shape {array.shape}; expected (n, ...) with n >= 1")
        if array.dtype == np.uint8 and (array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3))):
            raise ValueError(
                f"{where} has shape {array.shape}; expected images (n, h, w), (n, h, w, 1) or (n, h, w, 3)"
            )
        return array

    def _open_images(self, files: list[str], read: Callable[[str], bytes]) -> NDArray[np.int64] | None:
        images = sorted(
            f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES and not Path(f).name.startswith(".")
        )
        tables = sorted((f for f in files if Path(f).name == "labels.csv"), key=len)
        labels: NDArray[np.int64] | None = None
        if tables:
            images, labels = self._read_table(tables[0], read(tables[0]), set(files))
        else:
            folders = {f: Path(f).parent.name for f in images}
            classes = sorted(set(folders.values()) - {""})
            # Folders named 0, 1, ..., 10 are the labels; other names are numbered in sorted order.
            numbers = (
                {c: int(c) for c in classes}
                if all(c.isdecimal() for c in classes)
                else dict(zip(classes, range(len(classes)), strict=True))
            )
            flat = len(set(folders.values())) < 2
            labels = None if flat else np.array([numbers.get(folders[f], -1) for f in images], np.int64)
            if labels is not None:
                if (labels < 0).any():
                    lost = images[int(np.argmax(labels < 0))]
                    raise ValueError(
                        f"{self.source}: {lost} lies outside the class folders; move it or write a labels.csv"
                    )
                self.class_names = classes
        if not images:
            raise ValueError(f"{self.source}: no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self._names = images
        self._read = lambda row: read(images[row])
        return labels

    def _read_table(self, name: str, content: bytes, files: set[str]) -> tuple[list[str], NDArray[np.int64]]:
        where = f"{self.source}: {name}"
        folder = Path(name).parent
        images, labels = [], []
        try:
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
            if not {"file", "label"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{where}: its header is {reader.fieldnames}; expected file,label[,...]")
            for row in reader:
                file = str((folder / (row["file"] or "")).as_posix())
                if file not in files:
                    raise ValueError(f"{where}, line {reader.line_num}: no file {row['file']!r}")
                if not (row["label"] or "").strip().isdecimal():
                    raise ValueError(f"{where}, line {reader.line_num}: label {row['label']!r} is not a whole number")
                images.append(file)
                labels.append(int(row["label"]))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{where}: {error}") from None
        return images, np.array(labels, np.int64)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('images need Pillow: pip install "lowbit[images]"') from None
    return Image
