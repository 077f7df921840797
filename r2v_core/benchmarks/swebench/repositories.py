"""Clones and virtual environments of instances that are run on this machine."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from r2v_core.benchmarks.swebench.data import Instance
from r2v_core.errors import R2VError


def environment_of(instance: Instance, folder: Path) -> Path:
    """The Python of the virtual environment that is prepared for an instance.

    Raises:
        R2VError: if there is none.
    """
    names = (instance.instance_id, f"{instance.folder}-{instance.version}", instance.folder, "default")
    for name in names:
        python = folder.resolve() / "environments" / name / "bin/python"
        if python.exists():
            return python
    raise R2VError(
        f"{instance.instance_id}: no virtual environment in {folder / 'environments'}; make one named "
        f"{names[0]}, {names[1]}, {names[2]} or default with what its tests need"
    )


def repository_of(instance: Instance, folder: Path) -> Path:
    """The clone that holds an instance's base commit.

    Raises:
        R2VError: if there is none.
    """
    path = folder / "repositories" / instance.folder
    found = _git(path, "cat-file", "-e", f"{instance.base_commit}^{{commit}}") if path.is_dir() else None
    if found is None or found.returncode:
        what = f"lacks commit {instance.base_commit}" if path.is_dir() else "is missing"
        raise R2VError(
            f"{instance.instance_id}: the clone {path} {what}; clone {instance.repo} there for local execution"
        )
    return path


def exported(instance: Instance, folder: Path) -> bytes:
    """The files of the base commit as a tar."""
    path = repository_of(instance, folder)
    with tempfile.TemporaryDirectory(prefix="r2v-export-") as name:
        tree = Path(name, "tree")
        tree.mkdir()
        apart = {"GIT_INDEX_FILE": str(Path(name, "index")), "GIT_WORK_TREE": str(tree)}
        for arguments in (("read-tree", instance.base_commit), ("checkout-index", "-a")):
            done = _git(path, *arguments, cwd=tree, **apart)
            if done.returncode:
                raise R2VError(
                    f"{instance.instance_id}: git can't read {path}, so clone it again: {done.stderr.strip()}"
                )
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(tree, arcname=".")
    return packed.getvalue()


def _git(path: Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    path = path.resolve()
    folder = path / ".git" if (path / ".git").exists() else path
    return subprocess.run(
        ["git", "-c", "safe.directory=*", f"--git-dir={folder}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd or path,
        env={**os.environ, **variables},
    )


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Regular files of the repository by path, without git's own."""
    files = {}
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            handle = tar.extractfile(member) if member.isfile() and not name.startswith(".git/") else None
            if handle is not None:
                files[name] = handle.read()
    return files
