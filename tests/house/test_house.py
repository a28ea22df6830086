"""The house itself: its Makefile, its pins, its workflows, and what it must not say."""

import ast
import importlib.util
import re
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
TARGETS = "help book test train serve notebooks tangle lint clean".split()
# Settings of one machine: where its files are, and where it gets packages from.
MACHINE = re.compile(
    r"(?<![\w.])/(?:root|work|home)/\w|--(?:extra-)?index-url|find-links"
    r"|(?:pypi|pythonhosted)\.org|download\.pytorch\.org|registry\.npmjs"
)


def tracked() -> list[Path]:
    """Return the files that git keeps, with those about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return [path for path in paths if path.is_file()]


def load(path: str) -> ModuleType:
    """Import a script that is in no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("module", ["transformer", "modern"])
def test_a_chapter_s_model_is_short(module: str) -> None:
    """All of it can be read in one sitting."""
    text = (ROOT / "src" / "annotated" / f"{module}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 350


def test_make_alone_lists_every_target() -> None:
    """Somebody who types `make` learns what there is."""
    shown = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^  make ([a-z-]+) ", shown.stdout, flags=re.MULTILINE)
    assert set(TARGETS) <= set(listed)


def test_each_target_of_the_makefile_that_people_type_is_explained() -> None:
    """A target is listed by `make help`, or is a step of one that is."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)).split())
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony - explained == {"site"}


@pytest.mark.parametrize(
    "file", ["requirements.txt", "tests/notebooks/colab-requirements.txt"]
)
def test_requirements_are_exact(file: str) -> None:
    """One version a package, each package once, and no local build's suffix."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    pins = [pin for pin in pins if pin]
    inexact = [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)]
    assert not inexact
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))


def test_requirements_hold_what_pyproject_asks_for() -> None:
    """Every dependency, extras included, has its pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = project["project"]
    asked = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        asked += extra
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pinned = {same(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    wanted = {same(re.split(r"[<>=!~ \[]", line)[0]) for line in asked}
    assert wanted <= pinned


def test_requirements_run_under_the_oldest_python_we_name() -> None:
    """Debian's Python is the first patch release or two; no pin may ask for more."""
    file = ROOT / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".2"
    too_new = [
        f"{package.name}=={package.version}: {wanted}"
        for package in distributions()
        if (wanted := package.metadata.get("Requires-Python"))
        and not SpecifierSet(wanted).contains(oldest)
    ]
    assert not too_new


def same(name: str) -> str:
    """Return a package's name as registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_citation_can_be_read_and_agrees() -> None:
    """The citation file is YAML, of the version and address that the rest has."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == project["project"]["version"]
    assert citation["repository-code"] == config["repository"]["url"]
    assert citation["license"] == project["project"]["license"]


@pytest.mark.parametrize(
    "workflow",
    sorted((ROOT / ".github" / "workflows").glob("*.yml")),
    ids=lambda path: path.stem,
)
def test_workflow_pins_its_actions_and_its_time(workflow: Path) -> None:
    """Actions have a major version; jobs end by themselves."""
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["permissions"]["contents"] == "read"
    for name, job in content["jobs"].items():
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w./-]+@v\d+", action) for action in uses), name
        assert "timeout-minutes" in job, name


def test_pre_commit_runs_what_is_pinned() -> None:
    """Hooks are local: no second place says which ruff."""
    file = ROOT / ".pre-commit-config.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in content["repos"]] == ["local"]
    hooks = {hook["id"]: hook["entry"] for hook in content["repos"][0]["hooks"]}
    assert {"ruff", "ruff-format", "tangle", "normalise"} == set(hooks)
    assert all(entry.startswith(".venv/bin/") for entry in hooks.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the wheel; return the names of the files in it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built).namelist()


def test_wheel_holds_packages_records_and_model(wheel: list[str]) -> None:
    """An installed copy has every module, every record and the model, each once."""
    sources = {
        str(path.relative_to(ROOT / "src"))
        for package in ("annotated", "tangle")
        for path in (ROOT / "src" / package).rglob("*.py")
    }
    records = {f"annotated/results/{p.name}" for p in ROOT.glob("results/*.json")}
    held = {name for name in wheel if ".dist-info/" not in name}
    models = {f"annotated/{p.relative_to(ROOT)}" for p in ROOT.glob("models/*/*")}
    assert sources | records | models <= held
    assert all(name.startswith(("annotated/", "tangle/")) for name in held)
    assert len(wheel) == len(set(wheel))
    (entry_points,) = [name for name in wheel if name.endswith("entry_points.txt")]
    assert entry_points


def test_editable_install_has_no_copy_of_the_records() -> None:
    """Records are read where they are written, not from a copy that grows old."""
    command = [sys.executable, "-m", "pip", "show", "--files", "annotated"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Editable project location" not in shown:
        pytest.skip("annotated is installed from a wheel here")
    assert "results/" not in shown


def test_tracked_files_speak_of_no_machine() -> None:
    """No path of somebody's machine, and no host that packages come from."""
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue  # it has to name what it looks for
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        if path.suffix == ".ipynb":
            text = words_of_notebook(text)
        found += [
            f"{path.relative_to(ROOT)}: {match.group()}"
            for match in MACHINE.finditer(text)
        ]
    assert not found, "\n".join(found)


def words_of_notebook(text: str) -> str:
    """Return a notebook without its pictures, whose letters may spell anything."""
    return "\n".join(line for line in text.splitlines() if len(line) < 2000)


def test_steps_count_tests_and_shares(capfd: pytest.CaptureFixture[str]) -> None:
    """The runner adds up what pytest says, goes on after a failure, and fails."""
    steps = load("scripts/steps.py")
    status = steps.main(
        [
            "--keep-going",
            "one::echo '=== 2 passed, 1 skipped in 0.10s ==='",
            "two::echo '1 failed, 3 passed in 61.00s (0:01:01)'; exit 1",
        ]
    )
    shown = capfd.readouterr().out
    assert status == 1
    assert "step 1 of 2: one: took 0 s" in shown
    assert "step 2 of 2: two: FAILED, took 0 s" in shown
    assert "failed or not run: two" in shown
    assert re.search(r"0 s +in all\n", shown) and "WARNING" not in shown
    assert shown.splitlines()[-1].startswith("1 failed, 5 passed, 1 skipped in ")


def test_steps_stop_at_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    """Without --keep-going what comes after a failure is not run, and is said to be."""
    steps = load("scripts/steps.py")
    assert steps.main(["one::exit 3", "two::echo never"]) == 1
    shown = capfd.readouterr().out
    assert "\nnever" not in shown
    assert "FAILED (3)" in shown and "not run" in shown


def test_steps_warn_of_too_long_a_time_and_do_not_fail(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The total stands beside what it may be; a slow machine fails nothing."""
    steps = load("scripts/steps.py")
    slow = steps.Step("slow", "true", status=0, seconds=1000.0)
    quick = steps.Step("quick", "true", status=0, seconds=600.0)
    steps.report([slow, quick], minutes=25)
    shown = capfd.readouterr().out
    assert re.search(r"16 min 40 s   62%  ok +slow\n", shown)
    assert re.search(r"26 min 40 s  of 25 min +in all\nWARNING: over 25 min", shown)
    assert steps.main(["--minutes", "25", "quick::true"]) == 0
    assert "WARNING" not in capfd.readouterr().out


def test_an_old_python_gets_as_far_as_being_told() -> None:
    """What `make` runs before it looks at Python's version has no younger syntax."""
    text = (ROOT / "scripts" / "steps.py").read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 7))
    assert "\nfrom __future__ import annotations\n" in text


def test_live_site_adds_the_script_to_pages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages ask which build they show; other files are served as they are."""
    serve = load("scripts/serve.py")
    monkeypatch.setattr(serve, "SITE", tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text("<p>page</p>", encoding="utf-8")
    (tmp_path / "data.json").write_text("{}", encoding="utf-8")
    with serve.ThreadingHTTPServer(("127.0.0.1", 0), serve.Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"

        def get(path: str) -> bytes:
            with urllib.request.urlopen(address + path) as answer:
                body: bytes = answer.read()
                return body

        page = b"<p>page</p>" + serve.RELOAD
        assert get("/book/index.html?a=b#c") == get("/book") == get("/book/") == page
        assert get("/data.json") == b"{}"
        assert get("/-/build") == b"0"
        serve.State.build += 1
        assert get("/-/build") == b"1"
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            get("/none.html")
        missing.value.close()
        server.shutdown()


def test_colab_pins_follow_a_list_of_colab() -> None:
    """Versions come from the list, local parts dropped; what it lacks loses its pin."""
    colab = load("tests/notebooks/refresh_colab.py")
    ours = "# why\nnumpy==2.0.2\npillow==11.3.0\ntorch==2.13.0  # here\n"
    lower = "\n# What those need in turn\nsix==1.0\n"
    freeze = "numpy==2.1.0\ntorch @ https://example.org/torch-2.9.0%2Bcu126-cp312.whl\n"
    fresh = colab.refresh(ours + lower, freeze)
    assert fresh == "# why\nnumpy==2.1.0\npillow\ntorch==2.9.0\n"
