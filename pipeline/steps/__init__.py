"""The stages that `dvc repro` runs, one module each: from opened artefacts to a new one."""
