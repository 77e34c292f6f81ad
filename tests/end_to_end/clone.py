"""A copy of the repository, as a user has it, to run commands in."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

DVC = Path(sys.executable).with_name("dvc")


class Clone:
    """A git clone of the working tree, with its own DVC cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {
            "PATH": f"{DVC.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "DVC_NO_ANALYTICS": "1",
        }
        self.environment = {**os.environ, **environment, "BROWSER": "true"}  # what is to be opened is not
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (REPOSITORY / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.folder / name)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "as it is")

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def installed(self) -> None:
        """What `make install` leaves: a .venv, here of links to the one that the tests run in."""
        (self.folder / ".venv").mkdir()
        for part in Path(sys.prefix).iterdir():
            if part.name != "installed":
                (self.folder / ".venv" / part.name).symlink_to(part)
        (self.folder / ".venv/installed").touch()

    def set(self, block: str, key: str, value: object) -> None:
        """Change a line of params.yaml."""
        path = self.folder / "params.yaml"
        text = path.read_text()
        changed = re.sub(
            rf"(^{block}:\n(?:  .*\n)*?  {key}: )[^#\n]*", rf"\g<1>{value} ", text, flags=re.MULTILINE
        )
        assert changed != text
        path.write_text(changed)

    def shell(self, block: str) -> str:
        """Commands as they stand in the README; the first that fails ends them."""
        return self.run("bash", "-ec", block)

    def stages_run(self, *command: str) -> list[str]:
        """The stages that a DVC command says it runs."""
        return stages_in(self.run(*command))

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "data/metrics.json").read_text())  # type: ignore[no-any-return]


def stages_in(said: str) -> list[str]:
    """The stages that DVC says it runs."""
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
