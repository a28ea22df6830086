"""A machine like Colab's: its packages, an empty folder, nothing of this checkout."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COLAB_REQUIREMENTS = Path(__file__).with_name("colab-requirements.txt")
COLAB_PYTHON = ROOT / ".venv-colab" / "bin" / "python"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for `notebook` each notebook in turn."""
    if "notebook" in metafunc.fixturenames:
        metafunc.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture
def cells(notebook: Path) -> list[nbformat.NotebookNode]:
    """Return the notebook's code cells."""
    book = nbformat.read(notebook, as_version=4)
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package as its readers would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (built,) = folder.glob("annotated-*.whl")
    return built


def constraints() -> str:
    """Return the pins for what the notebooks install, so that each run does the same.

    They are ours, except where Colab comes with a version that suits the package: a
    reader keeps that one.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needs = {
        canonicalize_name(need.name): need.specifier
        for need in map(Requirement, project["project"]["dependencies"])
    }
    colab = pins(COLAB_REQUIREMENTS)
    kept = {
        name
        for name, version in colab.items()
        if name not in needs or needs[name].contains(version)
    }
    ours = pins(ROOT / "requirements.txt")
    return "".join(f"{name}=={ours[name]}\n" for name in sorted(ours.keys() - kept))


def pins(requirements: Path) -> dict[str, str]:
    """Return the version that a file gives each package."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", requirements.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a machine of one's own: Colab's packages, and pip for more.

    What is installed lands in an environment on top of `.venv-colab`, which stays as it
    is, so notebooks can run beside each other.
    """
    subprocess.run(["make", "--silent", ".venv-colab/.stamp"], cwd=ROOT, check=True)
    machine = tmp_path_factory.mktemp("machine")
    create = [str(COLAB_PYTHON), "-m", "venv", "--without-pip", str(machine)]
    subprocess.run(create, check=True)
    (below,) = (ROOT / ".venv-colab").glob("lib/python*/site-packages")
    (own,) = machine.glob("lib/python*/site-packages")
    (own / "colab.pth").write_text(f"{below}\n", encoding="utf-8")
    return machine / "bin" / "python"


@pytest.fixture(scope="session")
def colab_environment(
    tmp_path_factory: pytest.TempPathFactory, wheel: Path, python: Path
) -> dict[str, str]:
    """Return the environment variables of a run: kernel `colab`, and the wheel's path.

    The package's address in the first cell of a notebook becomes the wheel. Nothing of
    the checkout is on Python's path, and the data and caches of the machine are hidden.
    """
    home = tmp_path_factory.mktemp("colab")
    kernel = home / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    extra = {}
    if "ANNOTATED_NEWEST" not in os.environ:  # set once a week
        limits = home / "constraints.txt"
        limits.write_text(constraints(), encoding="utf-8")
        extra["PIP_CONSTRAINT"] = str(limits)
    hidden = {"ANNOTATED_DATA", "PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS"}
    hidden.add("PYTHONDONTWRITEBYTECODE")  # or each kernel compiles torch anew
    return {
        **{name: value for name, value in os.environ.items() if name not in hidden},
        "ANNOTATED_CACHE": str(home / "cache"),
        "ANNOTATED_PACKAGE": str(wheel),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PATH": str(home / "jupyter"),
        **extra,
    }


@pytest.fixture
def without_annotated(python: Path) -> Callable[[], None]:
    """Return what removes the package, so that a notebook has to install it itself.

    What it depends on may stay, as it may on a machine that ran another notebook.
    """

    def remove() -> None:
        look = "import importlib.util as u; exit(u.find_spec('annotated') is not None)"
        found = [str(python), "-I", "-c", look]
        if subprocess.run(found, cwd="/").returncode:
            pip = [sys.executable, "-m", "pip", "--python", str(python)]
            subprocess.run([*pip, "uninstall", "-qq", "-y", "annotated"], check=True)
            subprocess.run(found, cwd="/", check=True)

    return remove
