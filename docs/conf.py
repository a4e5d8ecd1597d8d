"""Sphinx configuration; what can be read off the installed package is, so that it cannot go stale."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import liquid_ssm.oracle
from liquid_ssm.backend import PRIMITIVES
from liquid_ssm.oracle.local_constants import DTYPES, box_text, local_constants
from liquid_ssm.problem import STRUCTURES
from liquid_ssm.registry import BUILT_IN

project = "liquid-ssm"
author = "The liquid-ssm contributors"
version = release = installed_version("liquid-ssm")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
html_theme = "furo"
html_title = f"liquid-ssm {release}"

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# What Lightning says of its hooks is not ours to show.
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Accuracy"]
# Attributes are already listed as members.
napoleon_use_ivar = True
# A single pair of backticks in a docstring is code.
default_role = "code"

# Names of other projects, without a network to fetch their inventories; bare names, which annotations that are only
# imported for the type checker leave unresolved.
_OTHERS = (
    "flint|hypothesis|lightning|llvmlite|mpmath|numba|numpy|np|npt|scipy|torch|typer|"
    "collections|os|pathlib|typing|weakref"
)
nitpick_ignore_regex = [(r"py:.*", rf"\w+|tuple\[\w+|({_OTHERS})\..*")]

GENERATED = Path(__file__).parent / "_generated"
# Its own modules, such as published_code.
sys.path.insert(0, str(Path(__file__).parent))
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# For digits_report, which makes the tables and plots of its results.
sys.path.append(str(BENCHMARKS))


def write_backend_table(folder: Path) -> None:
    """Which primitive each backend has for which structure, as its `capabilities` declare."""
    # Straight from the module, not from `get_backend`: the table also shows backends whose packages are not here.
    backends = []
    for name, target in BUILT_IN:
        module, _, attribute = target.partition(":")
        backends.append((name, getattr(import_module(module), attribute)()))
    names = [f"`{name}`" for name, _ in backends]
    rows: list[list[str]] = []
    for primitive in PRIMITIVES:
        declared = [made.capabilities.primitives.get(primitive) for _, made in backends]
        if all(not structures for structures in declared):
            rows.append([f"`{primitive}`", *("–" if structures is None else "yes" for structures in declared)])
            continue
        for structure in STRUCTURES:
            marks = ["yes" if structures and structure in structures else "–" for structures in declared]
            if "yes" in marks:
                rows.append([f"`{primitive}`, {structure}", *marks])
    rows.append(["dtypes", *(", ".join(made.capabilities.dtypes) for _, made in backends)])
    rows.append(["arrays", *(", ".join(made.capabilities.arrays) for _, made in backends)])
    rows.append(["devices", *(", ".join(made.capabilities.devices) for _, made in backends)])
    rows.append(["gradients", *("yes" if made.capabilities.gradients else "–" for _, made in backends)])
    rows.append(["linear term by", *(made.linear_method for _, made in backends)])
    rows.append(["needs", *(", ".join(made.requires) or "–" for _, made in backends)])
    table = [["", *names], ["---"] * (len(names) + 1), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"
    (folder / "backends.md").write_text(text, encoding="utf-8")


def write_command_line(folder: Path) -> None:
    """Every command and option, as Typer describes them."""
    command = [sys.executable, "-m", "typer", "liquid_ssm.cli", "utils", "docs", "--name", "liquid-ssm"]
    page = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    (folder / "command-line.md").write_text(page, encoding="utf-8")


def write_properties(folder: Path) -> None:
    """The properties of the conformance suite."""
    from liquid_ssm.testing.properties import PROPERTIES

    rows = [f"| `{item.name}` | {item.statement.replace('|', r'&#124;')} |" for item in PROPERTIES]
    text = "\n".join(["| property | statement |", "| --- | --- |", *rows]) + "\n"
    (folder / "properties.md").write_text(text, encoding="utf-8")


def write_models(folder: Path) -> None:
    """The named models, as their constructors make them."""
    from liquid_ssm.nn import MODELS, SSMLayer

    rows = []
    for name, model in MODELS.items():
        layer = model(2, 8)
        made = (layer.spec.label, layer.structure, layer.discretization) if isinstance(layer, SSMLayer) else ("–",) * 3
        options = model.options.get("init", "–")
        rows.append([f"`nn.{name}`", model.title, model.source, made[0], f"`{options}`", *made[1:]])
    head = ["constructor", "model", "source", "mode", "init", "structure", "discretisation"]
    table = [head, ["---"] * len(head), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"
    (folder / "models.md").write_text(text, encoding="utf-8")


def write_claims(folder: Path) -> None:
    """Every claim of the paper, evaluated now."""
    from liquid_ssm.claims import evaluate
    from liquid_ssm.claims.page import to_markdown

    (folder / "claims.md").write_text(to_markdown(evaluate()), encoding="utf-8")


def write_oracle_modules(folder: Path) -> None:
    """One section for each module of the oracle."""
    names = [f"liquid_ssm.oracle.{module.name}" for module in iter_modules(liquid_ssm.oracle.__path__)]
    sections = [f"### `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n" for name in names]
    (folder / "oracle.md").write_text("\n".join(sections), encoding="utf-8")


def write_benchmarks(folder: Path) -> None:
    """The committed measurements, one section for each machine; a machine may have speed, tightness, or both."""
    from liquid_ssm.bench.plots import draw
    from liquid_ssm.bench.result import Result
    from liquid_ssm.bench.tables import markdown

    sections = []
    for machine in sorted((Path(__file__).parents[1] / "benchmarks" / "results").iterdir()):
        parts, about = [], {}
        if (machine / "speed.json").exists():
            result = Result.from_json((machine / "speed.json").read_text(encoding="utf-8"))
            about = dict(result.environment)
            parts += ["### Speed\n", markdown(result, level=4)]
            # Drawn here, from the same numbers as the tables.
            images = draw(result, folder / "benchmarks" / machine.name)
            # Paths as docs/benchmarks.md sees them, which includes this text.
            for path in images:
                parts.append(f"![{path.stem.replace('-', ' ')}]({path.relative_to(folder.parent).as_posix()})\n")
        if (machine / "operators.json").exists():
            operators = Result.from_json((machine / "operators.json").read_text(encoding="utf-8"))
            about = about or dict(operators.environment)
            parts += ["### Torch operators\n", markdown(operators, level=4)]
        if (machine / "tightness.json").exists():
            tight = json.loads((machine / "tightness.json").read_text(encoding="utf-8"))
            about = about or tight["environment"]
            parts += ["### Bound over observed error\n", _tightness_table(tight["rows"])]
        if parts:
            versions = f"{about['python']}, NumPy {about['numpy']}, SciPy {about['scipy']}, {about['blas']}"
            known = [
                name for name in ("numba", "torch", "pykeops") if about.get(name, "not installed") != "not installed"
            ]
            others = "".join(f", {name} {about[name]}" for name in known)
            sections += [f"## {about['cpu']}, {about['cores']}\n", f"{versions}{others}.\n", *parts]
    (folder / "benchmarks.md").write_text("\n".join(sections) + "\n", encoding="utf-8")


def write_digits(folder: Path) -> None:
    """The committed training runs, one section for each machine: tables, and a plot that is drawn here."""
    from digits_report import draw, markdown

    sections = []
    for path in sorted((BENCHMARKS / "results").glob("*/digits.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        about = document["environment"]
        image = draw(document, folder / "digits" / f"{path.parent.name}.svg")
        sections += [
            f"### {about['cpu']}, {about['cores']}\n",
            f"{about['python']}, torch {about['torch']}, NumPy {about['numpy']}, numba {about['numba']}, scikit-learn "
            f"{about['scikit-learn']}. `{document['settings']['command']}`\n",
            markdown(document, level=4),
            # A path as docs/digits.md sees it, which includes this text.
            f"![accuracy and time per epoch]({image.relative_to(folder.parent).as_posix()})\n",
        ]
    (folder / "digits.md").write_text("\n".join(sections) + "\n", encoding="utf-8")


def write_experiments(folder: Path) -> None:
    """The committed experiments, one section each."""
    from experiments_report import markdown

    sections = []
    for path in sorted((BENCHMARKS / "results").glob("*/experiments-*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        about = document["environment"]
        sections += [
            f"### {document['title'][0].upper()}{document['title'][1:]}\n",
            f"{about['cpu']}, {about['cores']}, {about['torch threads']} thread(s) of torch {about['torch']}.\n",
            markdown(document),
        ]
    (folder / "experiments.md").write_text("\n".join(sections) + "\n", encoding="utf-8")


def _tightness_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| backend | structure | mode | dtype | bound | cases | median | largest | largest error/bound |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        names = " | ".join(r[key] for key in ("backend", "structure", "mode", "dtype", "kind"))
        tight = f"{r['median']:.3g} | {r['largest']:.3g} | {r['largest_observed_over_bound']:.2g}"
        lines.append(f"| {names} | {r['cases']} | {tight} |")
    return "\n".join(lines) + "\n"


def write_local_constants(folder: Path) -> None:
    """What Gappa proved about single steps, and what the bounds of the oracle have for them."""
    head = "| step | contraction | magnitude of the parts | proved, per part | compared | proved | oracle |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for pair in zip(*[iter(local_constants())] * len(DTYPES), strict=True):
        first = pair[0]
        variant = "fused" if first.fused else "separate"
        parts = ", ".join(f"{max(values):.4g}" for values in zip(*(e.parts for e in pair), strict=True))
        proved, allowed = max(e.proved for e in pair), min(e.allowed for e in pair)
        cells = [f"`{first.primitive}`", variant, box_text(first.box), parts, first.measure]
        rows.append(f"| {' | '.join([*cells, f'{proved:.3f}', f'{allowed:.3f}'])} |")
    (folder / "local-constants.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_generated(app: Any) -> None:
    GENERATED.mkdir(exist_ok=True)
    write_backend_table(GENERATED)
    write_command_line(GENERATED)
    write_properties(GENERATED)
    write_models(GENERATED)
    write_claims(GENERATED)
    write_oracle_modules(GENERATED)
    write_benchmarks(GENERATED)
    write_digits(GENERATED)
    write_experiments(GENERATED)
    write_local_constants(GENERATED)
    import_module("published_code").write_published_code(GENERATED)


def plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with `code`, not reStructuredText: keep |u|, P* and colons as they are."""
    code = False
    for i, line in enumerate(lines):
        # Code may go on in the next line, not in the next paragraph.
        code = code and bool(line.strip())
        # A star that opens the line is a bullet.
        opening = re.match(r"\s*(?:\* )?", line).group()  # type: ignore[union-attr]  # matches any line
        # In these places napoleon takes what stands before a colon for the type, which the signature gives.
        sentence = lines[i - 1].strip() == "Returns:" if i else what in ("attribute", "data", "property")
        text = opening + (": " if sentence else "")
        for j, part in enumerate(line[len(opening) :].split("`")):
            if j:
                code = not code
                # A letter right after code, as in `x`s, needs an escaped blank between them.
                text += "`\\ " if not code and part[:1].isalnum() else "`"
            text += part if code else re.sub(r"([|*])", r"\\\1", part)
        lines[i] = text


def setup(app: Any) -> None:
    app.connect("builder-inited", write_generated)
    # Before napoleon, which listens at 500 and adds markup of its own.
    app.connect("autodoc-process-docstring", plain_text, priority=400)
