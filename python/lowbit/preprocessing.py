"""What a network expects of its images: size, crop, channel order, mean, layout. Stated, never guessed."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network input: ``(pixel * scale - mean) / std``, after resizing and cropping.

    Attributes:
        size: (height, width) of the network's input.
        crop: The shorter side is resized to ``size / crop``, then the centre is cut out; 1.0 cuts the largest centre.
        interpolation: ``nearest``, ``bilinear``, ``bicubic`` or ``lanczos``, as Pillow does them.
        channels: ``RGB``, ``BGR`` or ``L`` (grey).
        scale: Factor on pixels 0..255, before ``mean`` and ``std``.
        mean: Per channel or one number, in units after ``scale``, in the order of ``channels``.
        std: Like ``mean``.
        layout: ``NCHW`` or ``NHWC``.

    A field that is None is unknown; what needs it raises ValueError and names it.

    Example:
        >>> import numpy as np
        >>> p = Preprocessing(size=(2, 2), channels="L", scale=1 / 255, mean=(0.5,), std=(0.5,), layout="NCHW")
        >>> p.normalise(np.array([[[[0], [255]], [[51], [204]]]], np.uint8)).round(1)
        array([[[[-1. ,  1. ],
                 [-0.6,  0.6]]]], dtype=float32)
    """

    size: tuple[int, int] | None = None
    crop: float | None = None
    interpolation: str | None = None
    channels: str | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        def refuse(condition: bool, what: str) -> None:
            if condition:
                raise ValueError(f"preprocessing: {what}")

        refuse(self.size is not None and min(self.size) < 1, f"size {self.size} must be positive")
        refuse(self.crop is not None and not 0 < self.crop <= 1, f"crop {self.crop} is not in (0, 1]")
        refuse(
            self.interpolation not in (None, *INTERPOLATIONS),
            f"interpolation {self.interpolation!r} is none of {', '.join(INTERPOLATIONS)}",
        )
        refuse(self.channels not in (None, *CHANNELS), f"channels {self.channels!r} is none of {', '.join(CHANNELS)}")
        refuse(self.layout not in (None, "NCHW", "NHWC"), f"layout {self.layout!r} is none of NCHW, NHWC")
        for name in ("mean", "std"):
            values = getattr(self, name)
            count = CHANNELS.get(self.channels or "", 0)
            refuse(
                values is not None and count > 0 and len(values) not in (1, count),
                f"{name} has {len(values or ())} values for {count} channels of {self.channels}",
            )
            refuse(values is not None and not np.isfinite(values).all(), f"{name} {values} is not finite")
        refuse(self.std is not None and 0 in self.std, f"std {self.std} contains 0")
        refuse(self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0), f"scale {self.scale}")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "preprocessing") -> Preprocessing:
        """From plain values as TOML has them: a number stands for a size of two equal sides, or a one-value mean.

        Args:
            values: Field names and values.
            where: Named in errors.

        Raises:
            ValueError: Unknown field, wrong type or value.

        Example:
            >>> Preprocessing.from_dict({"size": 224, "mean": 127, "std": 128}).size
            (224, 224)
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
        try:
            clean: dict[str, Any] = {k: v for k, v in values.items() if v is not None}
            if "size" in clean:
                size = clean["size"]
                clean["size"] = (int(size), int(size)) if isinstance(size, int) else tuple(int(s) for s in size)
                if len(clean["size"]) != 2:
                    raise ValueError(f"size {size} is not one number or (height, width)")
            for name in ("mean", "std"):
                if name in clean:
                    value = clean[name]
                    clean[name] = (float(value),) if isinstance(value, int | float) else tuple(float(v) for v in value)
            for name in ("scale", "crop"):
                if name in clean:
                    clean[name] = float(clean[name])
            return cls(**clean)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {str(error).removeprefix('preprocessing: ')}") from None

    @classmethod
    def load(cls, path: str | Path) -> Preprocessing:
        """From a TOML file with a ``[preprocessing]`` table.

        Raises:
            ValueError: Not TOML, no such table, or a wrong field.
            OSError: Unreadable file.
        """
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from None
        if not isinstance(table.get("preprocessing"), dict):
            raise ValueError(f"{path}: no [preprocessing] table")
        return cls.from_dict(table["preprocessing"], str(path))

    def to_dict(self) -> dict[str, Any]:
        """The known fields as JSON values; `from_dict` reads them back.

        Example:
            >>> Preprocessing(size=(2, 3), scale=0.5).to_dict()
            {'size': [2, 3], 'scale': 0.5}
        """
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in plain.items() if v is not None}

    def updated(self, other: Preprocessing) -> Preprocessing:
        """This one with the known fields of another put over it."""
        return replace(self, **{f.name: v for f in fields(other) if (v := getattr(other, f.name)) is not None})

    def need(self, *names: str, what: str, values: bool = False) -> None:
        """Raises ValueError naming those of the fields that are None; `values`: one of scale, mean, std as well."""
        missing = [n for n in names if getattr(self, n) is None]
        if values and self.scale is None and self.mean is None and self.std is None:
            missing.append("scale or mean and std")
        if missing:
            raise ValueError(
                f"{what}: the network's preprocessing is not known ({', '.join(missing)} missing); give --preprocess "
                "net.toml, or flags such as --size 224 --crop 0.875 --interpolation bilinear --channels RGB "
                "--mean 127.5 --std 127.5 --layout NCHW"
            )

    def normalise(self, images: Array) -> NDArray[np.float32]:
        """Pixels to network input.

        Args:
            images: (n, h, w, c) uint8, channels already in order.

        Returns:
            float32, (n, c, h, w) or (n, h, w, c) as `layout` says: ``(pixel * scale - mean) / std`` in float32 steps.
        """
        self.need("layout", what="normalise", values=True)
        x = images.astype(np.float32)
        if self.scale is not None:
            x *= np.float32(self.scale)
        if self.mean is not None:
            x -= np.asarray(self.mean, np.float32)
        if self.std is not None:
            x /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if self.layout == "NCHW" else x

    def fit(self, image: Any) -> NDArray[np.uint8]:
        """Resize, crop and order the channels of one Pillow image.

        Returns:
            (h, w, c) uint8.
        """
        from PIL import Image

        self.need("size", "channels", what="images")
        assert self.size is not None and self.channels is not None
        height, width = self.size
        image = image.convert("L" if self.channels == "L" else "RGB")
        if (image.height, image.width) != (height, width):
            self.need("crop", "interpolation", what=f"an image of {image.height}x{image.width} for {height}x{width}")
            assert self.crop is not None and self.interpolation is not None
            resample = getattr(Image.Resampling, self.interpolation.upper())
            # The factor that makes the crop window cover `crop` of the image in its tighter direction.
            factor = max(height / image.height, width / image.width) / self.crop
            scaled = max(width, round(image.width * factor)), max(height, round(image.height * factor))
            image = image.resize(scaled, resample)
            left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, np.uint8)
        if self.channels == "L":
            return pixels[:, :, None]
        return pixels[:, :, ::-1] if self.channels == "BGR" else pixels


def find_preprocessing(net: str | Path) -> Preprocessing | None:
    """The preprocessing kept with a net: ``net.toml`` beside ``net.onnx`` or ``net.lowbit``, if it has the table."""
    path = Path(net).with_suffix(".toml")
    if not path.is_file() or "preprocessing" not in tomllib.loads(path.read_text(encoding="utf-8")):
        return None
    return Preprocessing.load(path)
