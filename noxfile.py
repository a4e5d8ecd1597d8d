"""Developer tasks: `nox -s NAME`; every session makes its own environment with plain venv and pip."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "contracts", "proofs", "tests", "docs"]

ROOT = Path(__file__).parent
CONSTRAINTS = str(ROOT / "constraints.txt")
PYPROJECT = str(ROOT / "pyproject.toml")


def install_wheel(session: nox.Session, *tools: str, extras: str = "", constraints: str = CONSTRAINTS) -> None:
    """Install the package as a wheel, never editable, with the tools at their constrained versions."""
    # setuptools packs whatever an earlier build left there, deleted modules too.
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    session.install("-c", constraints, f"{ROOT}{extras}", *tools)


def lower_bounds(extra: str) -> list[str]:
    """The core and `extra` requirements of pyproject.toml with every `>=` as `==`."""
    project = nox.project.load_toml(PYPROJECT)["project"]
    pins = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\w.]+)(\s*;.*)?", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} in pyproject.toml has no plain lower bound; write it as name>=version")
        name, least, marker = match.groups("")
        pins.append(f"{name}=={least}{marker}")
    return pins


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite; arguments after `--` go to pytest."""
    install_wheel(session, extras="[test]")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def verify(session: nox.Session) -> None:
    """The main job, with its report as JSON; arguments after `--` go to `liquid-ssm verify`."""
    install_wheel(session, extras="[numba]")
    report = Path(session.create_tmp()) / "verify.json"
    session.run("liquid-ssm", "verify", "--json", str(report), *session.posargs)
    session.log(f"report: {report}")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format, without changing a file."""
    session.install("-c", CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict on the installed wheel, from a folder where the source tree is not in sight."""
    # liquid_ssm.testing is typed against hypothesis, the plots of liquid_ssm.bench against matplotlib.
    install_wheel(session, "mypy", extras="[test,bench]")
    session.chdir(session.create_tmp())
    session.run("mypy", "--config-file", PYPROJECT, "--strict", "-p", "liquid_ssm")


@nox.session
def contracts(session: nox.Session) -> None:
    """Who may import whom, on the installed wheel, from a folder where the source tree is not in sight."""
    install_wheel(session, "import-linter")
    session.chdir(session.create_tmp())
    session.run("lint-imports", "--config", PYPROJECT, "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with every warning and every dangling reference an error."""
    install_wheel(session, extras="[docs]")
    target = ROOT / "docs" / "_build" / "html"
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-E", "-b", "html", str(ROOT / "docs"), str(target))
    session.log(f"open {target / 'index.html'}")


@nox.session
def proofs(session: nox.Session) -> None:
    """The local constants of the error bounds, checked by Gappa (Debian: apt-get install gappa)."""
    install_wheel(session)
    session.run("python", str(ROOT / "proofs" / "check.py"))


@nox.session
def nightly(session: nox.Session) -> None:
    """Many random examples of every property; how tight the bounds are, 20,000 cases (`-- PATH` for their JSON)."""
    install_wheel(session, extras="[test]")
    session.run("pytest", str(ROOT / "tests" / "properties"), env={"HYPOTHESIS_PROFILE": "nightly"})
    target = session.posargs[0] if session.posargs else str(Path(session.create_tmp()) / "tightness.json")
    session.run("python", str(ROOT / "benchmarks" / "tightness.py"), "--cases", "20000", "--json", target)
    session.log(f"tightness: {target}")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, about half an hour; `nox -s bench -- FOLDER [SECONDS]` says where their JSON and plots go."""
    # The part on tightness draws its systems with liquid_ssm.testing.
    install_wheel(session, extras="[test,bench,numba]")
    folder, *rest = session.posargs or [session.create_tmp()]
    session.run("python", str(ROOT / "benchmarks" / "run.py"), folder, *rest)
    session.log(f"results: {folder}")


@nox.session
def build(session: nox.Session) -> None:
    """Source distribution and wheel, into dist/."""
    session.install("-c", CONSTRAINTS, "build")
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(ROOT / "dist"), str(ROOT))


@nox.session
def minimums(session: nox.Session) -> None:
    """The test suite with the oldest versions that pyproject.toml allows."""
    pins = Path(session.create_tmp()) / "minimums.txt"
    pins.write_text("\n".join(lower_bounds("test")) + "\n")
    install_wheel(session, extras="[test]", constraints=str(pins))
    session.run("pytest", *session.posargs)
