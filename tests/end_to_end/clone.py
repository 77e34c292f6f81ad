"""A copy of the repository, as a user has it, to run commands in."""

import json
import os
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
        environment = {"PATH": f"{DVC.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        self.environment = {**os.environ, **environment}
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=True
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

    def stages_run(self, *command: str) -> list[str]:
        """The stages that a DVC command says it runs."""
        lines = self.run(*command).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def metrics(self) -> dict[str, Any]:
        return json.loads((self.folder / "data/metrics.json").read_text())  # type: ignore[no-any-return]
