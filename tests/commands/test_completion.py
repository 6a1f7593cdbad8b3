"""Tab completion of `ovs3d` in a real interactive bash."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REGISTER = Path(sys.executable).with_name("register-python-argcomplete")
pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or not REGISTER.exists(), reason="needs bash and pip install argcomplete"
)
WAIT = 60.0  # seconds


class Shell:
    """An interactive bash whose folder holds a map, a picture and a folder."""

    def __init__(self, folder: Path, python_path: str, script: str) -> None:
        for name in ("room.ovs3d", "room.png"):
            (folder / name).touch()
        (folder / "maps").mkdir()
        (folder / "bin").mkdir()
        command = folder / "bin" / "ovs3d"
        command.write_text(f"#!{sys.executable}\n{script}")
        command.chmod(0o755)
        self._master, slave = pty.openpty()
        path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": python_path, "PATH": path, "PS1": "$ ", "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(slave)
        self.type(f'bind "set bell-style none"; eval "$({REGISTER} ovs3d)"; echo rea""dy\n')
        self.read_until(r"ready\r\n")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, pattern: str) -> str:
        shown, end = "", time.monotonic() + WAIT
        while not re.search(pattern, shown):
            assert time.monotonic() < end, f"no {pattern!r} in {shown!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                shown += os.read(self._master, 65536).decode()
        return shown

    def complete(self, line: str, pattern: str, keys: str = "\t") -> str:
        """Types a line and Tab, and returns what the terminal shows up to a pattern; clears the line."""
        self.type(line + keys)
        shown = self.read_until(pattern)
        self.type("\x15")  # Ctrl-U
        return shown

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture(scope="module")
def shell(tmp_path_factory, repository):
    script = "import sys\nfrom ovs3d_ros.cli import main\nsys.exit(main())\n"
    shell = Shell(tmp_path_factory.mktemp("shell"), str(repository), script)
    yield shell
    shell.close()


def test_commands_and_options_are_completed(shell):
    shell.complete("ovs3d que", r"ovs3d query $")
    shell.complete("ovs3d view --po", r"--port $")
    shell.complete("ovs3d query room.ovs3d mug --mode ar", r"--mode argmax $")
    shown = shell.complete("ovs3d re", r"refine[^$]*render", keys="\t\t")
    assert "query" not in shown


def test_maps_are_offered_and_other_files_are_not(shell):
    shell.complete("ovs3d view ro", r"room\.ovs3d $")
    shown = shell.complete("ovs3d view ", r"--port[^$]*maps/", keys="\t\t")
    assert "room.ovs3d" in shown and "room.png" not in shown


def test_parameters_and_their_values_are_completed(shell):
    shell.complete("ovs3d config --set clip.mod", r"clip\.model=?$|clip\.mode", keys="\t\t")
    shell.complete("ovs3d config --set query.upright=al", r"query\.upright=always $")
    shell.complete("ovs3d config --set output.camera_tf=t", r"output\.camera_tf=true $")


def test_completion_loads_no_torch(repository):
    code = (
        "import sys\nfrom ovs3d_ros.commands.arguments import make_parser\n"
        "from ovs3d_ros.commands.completion import complete_setting\n"
        "make_parser(); assert 'clip.model=' in complete_setting('clip.'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
    assert done.stdout == "False\n", done.stderr


def test_tab_of_another_python_does_not_run_the_command(repository, tmp_path):
    code = (
        "import sys; sys.modules['argcomplete'] = None\n"
        "from ovs3d_ros.cli import main; sys.exit(main(['demo', '-o', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "demo")],
        env=os.environ | {"_ARGCOMPLETE": "1"},
        capture_output=True,
        cwd=repository,
    )
    assert done.returncode == 1 and not (tmp_path / "demo").exists()
