"""Build and run the image where no image registry can be reached: bases made here, buildah in a chroot, runc.

The base of the first stage is a Debian of the release that the real one has, with Python and pip; that of the second
holds what distroless holds: the interpreter, its library, certificates, two users, and nothing to run a shell with.
Both are made once and kept in the user's cache; nothing of them is part of the product.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.patience import as_long_as_it_takes

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "skopeo", "umoci", "runc", "debootstrap")
RELEASE = "trixie"
PYTHON = "3.13"
BUILD, RUNTIME = "localhost/python-build:local", "localhost/python-runtime:local"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gin-sidecar" / "images"
_UNUSED = ("sitecustomize.py", "test", "idlelib", "ensurepip", "pydoc_data", "turtledemo", "tkinter", "lib2to3")
# Of libc6 and what belongs to it, distroless holds everything, whether Python links it or not; wheels do.
_LIBRARIES = (
    "libpthread",
    "libdl",
    "librt",
    "libutil",
    "libm",
    "libresolv",
    "libnss_*",
    "libanl",
    "libgcc_s",
    "libstdc++",
)


def require(*programs: str) -> None:
    """Skip, with the reason, where images cannot be built at all."""
    if os.geteuid() != 0:
        pytest.skip("not root: buildah's chroot isolation mounts file systems")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages of the same names)")


def run(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


@dataclass
class Store:
    """Images of one test session: their own storage, no daemon."""

    directory: Path

    def __post_init__(self):
        as_long_as_it_takes()
        conf = self.directory / "storage.conf"
        places = f'runroot = "{self.directory}/run"\ngraphroot = "{self.directory}/graph"\n'
        conf.write_text(f'[storage]\ndriver = "vfs"\n{places}')
        self.env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(conf),
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": "vfs",
        }
        pip = self.directory / "pip.conf"
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        self.volumes = [f"--volume={wheels()}:/wheels:ro", f"--volume={pip}:/etc/pip.conf:ro"]

    def buildah(self, *arguments: object, cwd: Path | None = None) -> str:
        return run("buildah", *arguments, env=self.env, cwd=cwd)

    def base(self, name: str, tree: Path, path: str) -> None:
        made = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", made, tree, "/")
        self.buildah("config", f"--env=PATH={path}", made)
        self.buildah("commit", "--quiet", "--rm", "--timestamp=0", made, name)

    def build(self, context: Path, name: str, *, form: str = "oci") -> None:
        """Build the Dockerfile of a source tree, as it is, on our bases."""
        as_long_as_it_takes()
        bases = {"PYTHON_IMAGE": BUILD, "RUNTIME_IMAGE": RUNTIME, "VERSION": "1.2.3", "REVISION": "0123abc"}
        arguments = [f"--build-arg={key}={value}" for key, value in bases.items()]
        self.buildah(
            *("bud", "--quiet", "--pull-never", "--no-cache", "--timestamp=0", f"--format={form}", f"--tag={name}"),
            *(*arguments, *self.volumes, "--file=Dockerfile", "."),
            cwd=context,
        )

    def digest(self, name: str) -> str:
        images = json.loads(self.buildah("images", "--json", name))
        return images[0]["digest"]

    def export(self, name: str, directory: Path) -> Path:
        """Write the image as an OCI layout and return its bundle: config.json and rootfs."""
        run("buildah", "push", "--quiet", name, f"oci:{directory}/oci:image", env=self.env)
        run("umoci", "unpack", "--image", f"{directory}/oci:image", directory / "bundle")
        return directory / "bundle"


def sources(directory: Path) -> Path:
    """Copy what git knows or would add: two builds must see one tree, whoever edits it meanwhile."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, directory / name)
    return directory


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time fill the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wheels() -> Path:
    """Return a folder with the locked wheels for the image's Python, asked for once."""
    folder = CACHE / "wheels"
    with _alone():
        folder.mkdir(parents=True, exist_ok=True)
        _download(folder)
    return folder


def _download(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--dest", folder)
    for lock in ("requirements.lock", "requirements-build.lock"):
        wanted = ("--require-hashes", "--only-binary", ":all:", "--python-version", PYTHON, "-r", ROOT / lock)
        offline = ("--no-index", "--find-links", folder)
        if subprocess.run([*map(str, (*pip, *offline, *wanted))], capture_output=True, check=False).returncode:
            run(*pip, *wanted)


def bases(store: Store) -> None:
    """Put both bases into the store; make them where the cache has none."""
    build, runtime = CACHE / f"build-{RELEASE}.tar", CACHE / f"runtime-{RELEASE}.tar"
    with _alone():
        if not (build.exists() and runtime.exists()):
            _make(build, runtime)
    store.base(BUILD, build, "/usr/local/bin:/usr/bin:/bin")
    store.base(RUNTIME, runtime, "/usr/bin")


def _make(build: Path, runtime: Path) -> None:
    work = CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    root, slim = work / "root", work / "slim"
    slim.mkdir(parents=True)
    run("debootstrap", "--variant=minbase", "--include=python3,ca-certificates", RELEASE, root, _mirror())
    for unused in (
        "var/lib/dpkg",
        "var/lib/apt",
        "var/cache/apt",
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
    ):
        shutil.rmtree(root / unused, ignore_errors=True)
    library = root / f"usr/lib/python{PYTHON}"
    (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    run(sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", work, "pip")
    (wheel,) = work.glob("pip-*.whl")
    target = root / f"usr/local/lib/python{PYTHON}/dist-packages"
    target.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "zipfile", "-e", wheel, target)

    objects = [Path("/usr/bin") / f"python{PYTHON}"]
    objects += [Path("/", path.relative_to(root)) for path in library.glob("lib-dynload/*.so")]
    linked = subprocess.run(["chroot", root, "ldd", *objects], capture_output=True, text=True, check=False).stdout
    whole = {
        str(path.relative_to(root)) for name in _LIBRARIES for path in root.glob(f"usr/lib/*-linux-gnu/{name}.so.*")
    }
    for name in {f"usr/bin/python{PYTHON}", *re.findall(r"/(\S+) \(0x", linked), *whole}:
        (slim / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2((root / name).resolve(), slim / name)
    skip = shutil.ignore_patterns("__pycache__", "config-*", *_UNUSED)
    shutil.copytree(library, slim / f"usr/lib/python{PYTHON}", ignore=skip, dirs_exist_ok=True)
    (slim / "usr/bin/python3").symlink_to(f"python{PYTHON}")
    for name, text in {
        "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n",
        "etc/group": "root:x:0:\nnonroot:x:65532:\n",
        "etc/ssl/certs/ca-certificates.crt": (root / "etc/ssl/certs/ca-certificates.crt").read_text(),
    }.items():
        (slim / name).parent.mkdir(parents=True, exist_ok=True)
        (slim / name).write_text(text)
    for tree, archive in ((root, build), (slim, runtime)):
        part = archive.with_suffix(".part")
        run("tar", "-C", tree, "--numeric-owner", "--sort=name", "--mtime=@0", "-cf", part, ".")
        part.rename(archive)
    shutil.rmtree(work, ignore_errors=True)


def _mirror() -> str:
    """Return the Debian archive that this machine's own apt uses."""
    listed = run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)")
    found = [row.removeprefix("Debian|Debian|") for row in listed.splitlines() if row.startswith("Debian|Debian|")]
    assert found, "apt knows no Debian archive to take the bases' packages from: run apt-get update"
    return found[0]
