"""Compiled kernels on disk: stale ones are never used, and a missing or broken folder costs time only."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ovs3d_ros.rasterize import kernel_cache

KERNEL = """
from numba import njit
from .kernel_cache import cached_njit
from .helper import step

@cached_njit(nogil=True)
def walk(x):
    return step(x)
"""
HELPER = "from numba import njit\nLENGTH = {length}\n@njit\ndef step(x):\n    return x + LENGTH\n"
USE = """
import logging, sys
logging.basicConfig(format="%(message)s")
from small.rasterize import kernel_cache
{prepare}
from small.rasterize.kernel import walk
print(walk(1), sum(walk.stats.cache_hits.values()))
"""


@pytest.fixture
def small(tmp_path) -> Path:
    """A package with the module under test, one kernel, and its helper in another file."""
    folder = tmp_path / "small" / "rasterize"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    shutil.copy(kernel_cache.__file__, folder)
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "helper.py").write_text(HELPER.format(length=1))
    return folder


def run(small: Path, prepare: str = "") -> tuple[str, str]:
    """Runs the kernel in a process of its own; returns "result hits" and standard error."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", USE.format(prepare=prepare)],
        cwd=small.parents[1],
        env=environment | {"PYTHONPATH": str(small.parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_changed_helper_is_never_stale(small):
    assert run(small) == ("2 0", "")
    assert run(small) == ("2 1", ""), "compiled once"
    (small / "helper.py").write_text(HELPER.format(length=5))
    assert run(small) == ("6 0", ""), "the kernel's own file is the same as before"
    assert run(small) == ("6 1", "")
    (small / "unrelated.py").write_text("x = 1\n")
    assert run(small) == ("6 1", ""), "a file without kernels costs no compilation"


def test_no_writable_folder_costs_one_warning(small):
    nowhere = (
        "from pathlib import Path\nkernel_cache._roots = lambda: [Path('/dev/null/a'), Path('/dev/null/b')]"
    )
    result, messages = run(small, nowhere)
    assert result == "2 0" and messages.count("\n") == 1
    assert all(word in messages for word in ("/dev/null/a", "/dev/null/b", "NUMBA_CACHE_DIR"))


def test_installation_without_write_access_uses_the_user_folder(small, tmp_path):
    (small.parent / "__pycache__").write_text("a file, which even root cannot write into as a folder")
    home = f"import os; os.environ['XDG_CACHE_HOME'] = r'{tmp_path}/cache'"
    assert run(small, home) == ("2 0", "")
    assert run(small, home) == ("2 1", "")
    assert list((tmp_path / "cache" / "small").glob("kernels-*"))


def test_broken_cache_files_are_compiled_again(small):
    run(small)
    (index,) = (small.parent / "__pycache__").glob("kernels-*/*/*.nbi")
    index.write_bytes(b"")
    result, messages = run(small)
    assert result == "2 0" and "again" in messages and messages.count("\n") == 1
    assert run(small) == ("2 1", ""), "mended"


def test_full_disk_costs_one_warning(small):
    full = (
        "from numba.core.caching import IndexDataCacheFile\n"
        "def save(*_): raise OSError(28, 'No space left on device')\n"
        "IndexDataCacheFile.save = save"
    )
    result, messages = run(small, full)
    assert result == "2 0" and "No space left on device" in messages and messages.count("\n") == 1


def test_shared_temporary_folder_must_be_private(tmp_path):
    assert kernel_cache._private_folder(tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for name in ("open", "link"):
        with pytest.raises(PermissionError):
            kernel_cache._private_folder(tmp_path / name)


def test_old_folders_are_removed(tmp_path):
    for age in range(kernel_cache._KEPT_FOLDERS + 3):
        folder = tmp_path / f"kernels-{age}"
        folder.mkdir()
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / "other").mkdir()
    kernel_cache._remove_old(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [*(f"kernels-{age}" for age in range(kernel_cache._KEPT_FOLDERS)), "other"]


def test_kernels_contain_only_hashed_sources():
    """A kernel contains what its file imports; each such file of the package counts in the folder's name."""
    package = Path(kernel_cache.__file__).parents[1]
    sources = {path.relative_to(package).with_suffix("") for path in kernel_cache.kernel_sources()}
    jitted = 0
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        origins = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (
                node.level or (node.module or "").startswith("ovs3d_ros")
            ):
                folder = path.parent.relative_to(package) if node.level else Path()
                module = folder / (node.module or "").removeprefix("ovs3d_ros.").replace(".", "/")
                origins |= {alias.asname or alias.name: module for alias in node.names}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and any(
                "njit" in ast.unparse(decorator) or ast.unparse(decorator) == "intrinsic"
                for decorator in function.decorator_list
            ):
                jitted += 1
                assert path.relative_to(package).with_suffix("") in sources, path
                used = {
                    node.id
                    for statement in function.body
                    for node in ast.walk(statement)
                    if isinstance(node, ast.Name)
                }
                assert {origins[name] for name in used & origins.keys()} <= sources, (path, function.name)
    assert jitted > 40
