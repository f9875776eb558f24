"""What pip and conda install is what the package imports, and what pre-commit and CI run is what the developer has."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA_NAMES = {"torch": "pytorch", "lazy-loader": "lazy_loader"}
"""Packages that conda-forge calls otherwise than PyPI."""


def floors(requirements):
    """Lowest version of each package, from lines of the form ``name>=version``."""
    found = [re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", line) for line in requirements]
    assert all(found), requirements
    return {match[1]: match[2] for match in found}


def test_conda_and_pip_ask_for_the_same_packages():
    pip = {CONDA_NAMES.get(name, name): floor for name, floor in floors(PROJECT["project"]["dependencies"]).items()}
    conda = floors(line for line in ENVIRONMENT["dependencies"] if line != "pip")
    assert f">={conda.pop('python')}" == PROJECT["project"]["requires-python"]
    assert conda == pip
    assert ENVIRONMENT["channels"][0] == "conda-forge"


def test_environment_yml_says_which_extras_it_leaves_out():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert all(extra in text for extra in PROJECT["project"]["optional-dependencies"])


def imported():
    """Top-level packages that geounet imports anywhere, with one file that does."""
    found = {}
    for path in sorted((ROOT / "geounet").rglob("*.py*")):
        if path.suffix not in {".py", ".pyi"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found |= {name.split(".")[0]: path.relative_to(ROOT) for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name != "geounet"}


def test_what_is_imported_is_declared():
    declared = {normal(name) for name in floors(PROJECT["project"]["dependencies"])}
    providers = packages_distributions()
    missing = {
        name: path
        for name, path in imported().items()
        if not declared & {normal(each) for each in providers.get(name, [name])}
    }
    assert missing == {}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_pre_commit_runs_what_ci_runs_and_fetches_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for hook in hooks:
        assert hook["entry"].split(" --")[0] in steps
        assert hook["entry"].split()[0] in {re.split("[>=]", line)[0] for line in dev_tools()}


def dev_tools():
    """Commands that the dev extra brings."""
    return [
        line.replace("import-linter", "lint-imports") for line in PROJECT["project"]["optional-dependencies"]["dev"]
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="no bash here")
def test_ci_takes_its_commands_from_the_readme_and_refuses_an_old_python(tmp_path):
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(
        r'^pip install "\.\[test\]" && pytest$', (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert run.rstrip().splitlines()[-1].startswith('bash -c "$tests"')  # nothing after pytest's summary
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.0 || exit 1\n')
    old.chmod(0o755)
    refused = subprocess.run(
        [ROOT / ".ci" / "run"],
        check=False,
        env={"PYTHON": str(old), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert refused.returncode == 1
    assert b"needs Python 3.11 or newer" in refused.stderr
    assert list(tmp_path.iterdir()) == [old]
