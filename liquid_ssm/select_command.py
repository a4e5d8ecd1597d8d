"""The commands `liquid-ssm select` and `liquid-ssm explain`.

Exit codes: 0 a backend is chosen, 1 none passes, 2 usage or input error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from .console import check_target, write_json
from .errors import BackendRejected, ParameterError, unknown_name
from .problem import CORRELATIONS, DEFAULT_ORDER, DTYPES, MODES, STRUCTURES, ModeSpec, Problem
from .report import dump_json
from .selection.defaults import BUDGET, DT_MAX, DT_MIN

if TYPE_CHECKING:
    from .certificate import Candidate, Certificate, Domain
    from .select import Choice

NONE_PASSES = 1
ARRAYS = ("numpy", "torch")
DEVICES = ("cpu", "cuda")

# An integrator has one way of being computed.
_STRUCTURES = tuple(name for name in STRUCTURES if name != "integrator")
# The width of text that goes to a file or a pipe.
_PAGE = 100
_STYLES = {"chosen": "bold green", "passed": "green", "refused": "yellow", "failed": "bold red"}

_PROBLEM, _SYSTEM, _WANTED, _OUTPUT = "The problem", "The standard system", "What is wanted", "Output"

ModeOption = Annotated[
    str, typer.Option(metavar="NAME", help=f"{', '.join(MODES[:-1])} or {MODES[-1]}.", rich_help_panel=_PROBLEM)
]
OrderOption = Annotated[
    int | None,
    typer.Option(
        metavar="P",
        help=f"Highest liquid order of truncated, kb and pb. Default: {DEFAULT_ORDER}.",
        rich_help_panel=_PROBLEM,
    ),
]
CorrelationsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help=f"{' or '.join(CORRELATIONS)}, of kb and pb. Default: all.", rich_help_panel=_PROBLEM
    ),
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        metavar="L", help="Newest inputs that a correlation of kb or pb uses. Default: all.", rich_help_panel=_PROBLEM
    ),
]
StructureOption = Annotated[
    str,
    typer.Option(metavar="NAME", help=f"{', '.join(_STRUCTURES[:-1])} or {_STRUCTURES[-1]}.", rich_help_panel=_PROBLEM),
]
BatchOption = Annotated[int, typer.Option(metavar="B", min=1, help="Rows of u.", rich_help_panel=_PROBLEM)]
ChannelsOption = Annotated[int, typer.Option(metavar="H", min=1, help="Channels of u.", rich_help_panel=_PROBLEM)]
NStateOption = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        help="State size per channel; even, since all but dense systems store one of each conjugate pair.",
        rich_help_panel=_PROBLEM,
    ),
]
LengthOption = Annotated[int, typer.Option(metavar="L", min=1, help="Time steps of u.", rich_help_panel=_PROBLEM)]
DtypeOption = Annotated[str, typer.Option(metavar="NAME", help=f"{' or '.join(DTYPES)}.", rich_help_panel=_PROBLEM)]
ArraysOption = Annotated[str, typer.Option(metavar="NAME", help=f"{' or '.join(ARRAYS)}.", rich_help_panel=_PROBLEM)]
DeviceOption = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, or cuda with --arrays torch.", rich_help_panel=_PROBLEM)
]
GradientOption = Annotated[
    bool, typer.Option("--gradient", help="Gradients are computed too.", rich_help_panel=_PROBLEM)
]
StateOption = Annotated[bool, typer.Option("--state", help="States are given or asked for.", rich_help_panel=_PROBLEM)]
DtMinOption = Annotated[float, typer.Option(metavar="TIME", help="Smallest step size.", rich_help_panel=_SYSTEM)]
DtMaxOption = Annotated[float, typer.Option(metavar="TIME", help="Largest step size.", rich_help_panel=_SYSTEM)]
SeedOption = Annotated[
    int, typer.Option(metavar="K", min=0, help="Of the system and the inputs.", rich_help_panel=_SYSTEM)
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Largest error relative to the largest |y|, such as 1e-5. Default: rounding errors in the data's dtype.",
        rich_help_panel=_WANTED,
    ),
]
BudgetOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="Time that a selection may take.", rich_help_panel=_WANTED)
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Only this backend, without a certificate on disk; `liquid-ssm info` lists them; repeatable.",
        rich_help_panel=_WANTED,
    ),
]
JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="PATH",
        help="Write JSON; - for standard output, which then carries nothing else.",
        rich_help_panel=_OUTPUT,
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print the backend's name only.", rich_help_panel=_OUTPUT)
]


@dataclass(frozen=True)
class _Asked:
    """What the options ask for, checked."""

    problem: Problem
    n_state: int
    dt_min: float
    dt_max: float
    seed: int
    tolerance: float | None
    budget: float
    backends: tuple[str, ...]

    def choose(self, again: bool) -> Choice:
        from .select import select

        return select(
            self.problem,
            self.tolerance,
            budget=self.budget,
            again=again,
            backends=self.backends or None,
            seed=self.seed,
            dt_min=self.dt_min,
            dt_max=self.dt_max,
        )

    def lines(self) -> list[tuple[str, str]]:
        p = self.problem
        computed = ["outputs", *(["states"] if p.state else []), *(["gradients"] if p.gradient else [])]
        goal = "the derived bound of rounding errors" if self.tolerance is None else f"tolerance {self.tolerance:g}"
        return [
            (
                "problem",
                f"{p.spec.label}, {' and '.join(computed)}; batch {p.batch}, channels {p.n_channels}, length "
                f"{p.length:,}, state size {self.n_state}; {p.arrays} arrays, {p.dtype}, on {p.device}",
            ),
            (
                "system",
                f"standard {p.structure} system, bilinear, dt {self.dt_min:g} to {self.dt_max:g} [time], normal "
                f"inputs, seed {self.seed}",
            ),
            ("wanted", f"{goal}; budget {self.budget:g} s"),
        ]


def select(
    mode: ModeOption = "liquid",
    order: OrderOption = None,
    correlations: CorrelationsOption = None,
    window: WindowOption = None,
    structure: StructureOption = "diagonal",
    batch: BatchOption = 8,
    channels: ChannelsOption = 16,
    n_state: NStateOption = 64,
    length: LengthOption = 1024,
    dtype: DtypeOption = "float64",
    arrays: ArraysOption = "numpy",
    device: DeviceOption = "cpu",
    gradient: GradientOption = False,
    state: StateOption = False,
    dt_min: DtMinOption = DT_MIN,
    dt_max: DtMaxOption = DT_MAX,
    seed: SeedOption = 0,
    tolerance: ToleranceOption = None,
    budget: BudgetOption = BUDGET,
    backend: BackendOption = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Select anew, even if a valid certificate is on disk.", rich_help_panel=_WANTED),
    ] = False,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Verify and time every backend on a problem, take the fastest that is accurate enough, and print all of them."""
    asked = _asked(
        mode, order, correlations, window, structure, batch, channels, n_state, length, dtype, arrays, device, gradient,
        state, dt_min, dt_max, seed, tolerance, budget, backend,
    )  # fmt: skip
    check_target("--json", json)
    choice = _choice(asked, again, json, quiet)
    _write(choice.certificate, choice.new, choice.reasons, json, kept=not asked.backends)
    if json == "-":
        return
    if quiet:
        print(choice.backend)
        return
    _print_asked(asked, choice.candidates, sys.stdout)
    _print_pairs(_outcome(asked, choice), sys.stdout)


def explain(
    context: typer.Context,
    id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="Of a certificate on disk, or its beginning, in the place of a problem's options."
        ),
    ] = None,
    mode: ModeOption = "liquid",
    order: OrderOption = None,
    correlations: CorrelationsOption = None,
    window: WindowOption = None,
    structure: StructureOption = "diagonal",
    batch: BatchOption = 8,
    channels: ChannelsOption = 16,
    n_state: NStateOption = 64,
    length: LengthOption = 1024,
    dtype: DtypeOption = "float64",
    arrays: ArraysOption = "numpy",
    device: DeviceOption = "cpu",
    gradient: GradientOption = False,
    state: StateOption = False,
    dt_min: DtMinOption = DT_MIN,
    dt_max: DtMaxOption = DT_MAX,
    seed: SeedOption = 0,
    tolerance: ToleranceOption = None,
    budget: BudgetOption = BUDGET,
    backend: BackendOption = None,
    json: JsonOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say why a backend is chosen for a problem and the others are not, and what its certificate covers.

    The certificate is read from disk; only where there is none that holds, one is made first.
    """
    check_target("--json", json)
    if id is not None:
        _refuse_others(context, ("id", "json", "quiet"))
        _explain_stored(id, json, quiet)
        return
    asked = _asked(
        mode, order, correlations, window, structure, batch, channels, n_state, length, dtype, arrays, device, gradient,
        state, dt_min, dt_max, seed, tolerance, budget, backend,
    )  # fmt: skip
    choice = _choice(asked, False, json, quiet)
    _write(choice.certificate, choice.new, choice.reasons, json, kept=not asked.backends, said=choice.explain())
    if json == "-":
        return
    if quiet:
        print(choice.backend)
        return
    if choice.new:
        kept = " With --backend none is read from disk or kept." if asked.backends else ""
        _print_wrapped(f"There was no valid certificate, so one was made first.{kept}")
    for line in choice.explain().splitlines():
        _print_wrapped(line)


def _explain_stored(id: str, json: str | None, quiet: bool) -> None:
    from .certificate_store import CertificateStore, validators_here
    from .selection.explanation import explain as said

    store = CertificateStore()
    certificate = store.get(id)
    current, trouble = validators_here(certificate.domain)
    why = trouble or store.why_not(certificate, current)
    text = said(certificate, new=False)
    _write(certificate, False, why, json, said=text)
    if json == "-":
        return
    if quiet:
        print(certificate.backend)
        return
    _print_wrapped("It does not hold here any more:" if why else "It holds here.")
    for line in (*(f"  {reason}" for reason in why), *text.splitlines()):
        _print_wrapped(line)


def _asked(
    mode: str,
    order: int | None,
    correlations: str | None,
    window: int | None,
    structure: str,
    batch: int,
    channels: int,
    n_state: int,
    length: int,
    dtype: str,
    arrays: str,
    device: str,
    gradient: bool,
    state: bool,
    dt_min: float,
    dt_max: float,
    seed: int,
    tolerance: float | None,
    budget: float,
    backends: list[str] | None,
) -> _Asked:
    """The options as a problem.

    Raises:
        ParameterError: one of them is out of range, or does not go with the others.
    """
    for kind, given, allowed in (
        ("structure", structure, _STRUCTURES),
        ("dtype", dtype, DTYPES),
        ("kind of arrays", arrays, ARRAYS),
        ("device", device, DEVICES),
    ):
        if given not in allowed:
            raise unknown_name(kind, given, allowed)
    spec = ModeSpec(mode, *(DEFAULT_ORDER if order is None else order, correlations or "all", window))
    for option, value, applies, modes in (
        ("--order", order, spec.has_order, "truncated, kb and pb"),
        ("--correlations", correlations, spec.has_correlations, "kb and pb"),
    ):
        if value is not None and not applies:
            raise ParameterError(f"{option} {value} is of the modes {modes}, not of {mode!r}; leave it out.")
    if structure != "dense" and n_state % 2:
        raise ParameterError(
            f"--n-state is {n_state}; {structure} systems store one of each conjugate pair, so it must be even. Give "
            f"{n_state + 1}, or --structure dense."
        )
    for option, number in (("--tolerance", tolerance), ("--budget", budget)):
        if number is not None and not 0 < number < float("inf"):
            raise ParameterError(f"{option} is {number}; it must be positive and finite.")
    if not 0 < dt_min <= dt_max < float("inf"):
        raise ParameterError(
            f"--dt-min is {dt_min} and --dt-max is {dt_max}; they need 0 < --dt-min <= --dt-max, finite."
        )
    _require_arrays(arrays, device)
    if backends:
        from .registry import backend_names

        for name in backends:
            if name not in backend_names():
                raise unknown_name("backend", name, backend_names())
    modes_per_channel = n_state if structure == "dense" else n_state // 2
    problem = Problem(
        spec, structure, batch, channels, modes_per_channel, length, dtype, device, gradient, state, arrays
    )
    return _Asked(problem, n_state, dt_min, dt_max, seed, tolerance, budget, tuple(dict.fromkeys(backends or ())))


def _require_arrays(arrays: str, device: str) -> None:
    """Refuse torch where it is not installed, and a GPU that is not there."""
    if device == "cuda" and arrays != "torch":
        raise ParameterError("--device cuda computes with torch tensors; give --arrays torch too.")
    if arrays != "torch":
        return
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise ParameterError("--arrays torch needs torch, which is not installed. Run: pip install 'liquid-ssm[torch]'")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ParameterError(
                "--device cuda needs a GPU, and torch finds none; `liquid-ssm info` says what torch was built for. "
                "Leave --device out to compute on the CPU."
            )


def _refuse_others(context: typer.Context, allowed: Sequence[str]) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in allowed and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise ParameterError(
            f"explain with an ID is about that certificate, so {', '.join(given)} cannot be given too; leave one out."
        )


def _choice(asked: _Asked, again: bool, json: str | None, quiet: bool) -> Choice:
    """The selection; where no backend passes, its table and the exit."""
    try:
        return asked.choose(again)
    except BackendRejected as error:
        document: dict[str, object] = {"backend": None, "candidates": error.candidates, "certificate": None}
        document |= {"new": False, "reasons": []}
        _write_document(document, json)
        said = quiet or not error.candidates or json == "-"
        if not said:
            _print_asked(asked, error.candidates, sys.stdout)
        # The table has the reasons.
        text = str(error) if quiet or not error.candidates else str(error).partition("\n")[0]
        print(f"error: {text}", file=sys.stderr)
        raise typer.Exit(NONE_PASSES) from None


def _write(
    certificate: Certificate,
    new: bool,
    reasons: Iterable[str],
    json: str | None,
    *,
    kept: bool = True,
    said: str | None = None,
) -> None:
    document = {
        "backend": certificate.backend,
        "candidates": certificate.candidates,
        "certificate": certificate.document(),
        "new": new,
        "reasons": list(reasons),
        "id": certificate.id,
        "file": _file(certificate) if kept else None,
    }
    _write_document(document if said is None else {**document, "explanation": said.splitlines()}, json)


def _write_document(document: dict[str, Any], json: str | None) -> None:
    if json is not None:
        write_json(dump_json({**document, "candidates": [asdict(one) for one in document["candidates"]]}), json)


def _file(certificate: Certificate) -> str | None:
    """Where it is on disk; None where it could not be kept."""
    from .certificate_store import CertificateStore

    path = CertificateStore().folder / f"{certificate.id}.json"
    return str(path) if path.exists() else None


def _outcome(asked: _Asked, choice: Choice) -> list[tuple[str, str]]:
    from .selection.explanation import covered, origin

    certificate = choice.certificate
    file = _file(certificate)
    kept = "not kept, since --backend leaves others out" if asked.backends else file or "not kept, see the warning"
    why = next(c.reason for c in choice.candidates if c.status == "chosen")
    domain = dict(covered(certificate.domain))
    names = ("batch", "channels", "modes per channel", "length", "largest |a|", "largest |b u|", "step size")
    return [
        ("chosen", f"{choice.backend}, {why}"),
        ("certificate", f"{certificate.id}, {origin(certificate, new=choice.new)}"),
        ("file", kept),
        *(("not used", reason) for reason in choice.reasons),
        ("covers", ", ".join(f"{name} {domain[name]}" for name in names)),
        ("use", _use(certificate.domain, choice.backend, kept=file is not None and not asked.backends)),
    ]


def _use(domain: Domain, backend: str, *, kept: bool) -> str:
    """The call that takes this backend."""
    by_vjp = domain.gradient and domain.arrays == "numpy"
    options = {"mode": domain.mode, "order": domain.order, "correlations": domain.correlations, "window": domain.window}
    words = [f"{name}={value!r}" for name, value in options.items() if value is not None]
    words += ["return_state=True"] if domain.state and not by_vjp else []
    call = f"liquid_ssm.{'vjp(system, u, grad_y' if by_vjp else 'apply(system, u'}"
    named = f"{call}, {', '.join([*words, f'backend={backend!r}'])})"
    if not kept:
        return named
    words += [] if domain.tolerance is None else [f"tolerance={domain.tolerance:g}"]
    chosen = f"{call}, {', '.join(words)})"
    return f'{chosen} takes it (backend="auto", the default) where the certificate covers the call; {named} always does'


def _print_asked(asked: _Asked, candidates: Sequence[Candidate], out: TextIO) -> None:
    from .selection.table import table

    _print_pairs(asked.lines(), out)
    _print_line("", "", out)
    for line, status in table(candidates, _terminal_width(out), _PAGE):
        _print_line(line, _STYLES.get(status, "dim" if status else "bold"), out)
    _print_line("", "", out)


def _print_pairs(pairs: Iterable[tuple[str, str]], out: TextIO) -> None:
    for name, value in pairs:
        _print_wrapped(value, f"{name:<11}  ", out)


def _print_wrapped(line: str, label: str = "", out: TextIO | None = None) -> None:
    """A line within the page's width; what goes on is indented by two more characters, or as far as the label."""
    import textwrap

    out = out or sys.stdout
    text = line.lstrip(" ")
    start = label + " " * (len(line) - len(text))
    # Long words stay whole: they are paths and names, which people copy.
    for part in textwrap.wrap(
        text,
        _terminal_width(out) or _PAGE,
        initial_indent=start,
        subsequent_indent=" " * (len(start) + (0 if label else 2)),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        _print_line(part, "", out)


def _print_line(line: str, style: str, out: TextIO) -> None:
    if _terminal_width(out) is None:
        print(line, file=out)
        return
    from rich.console import Console
    from rich.text import Text

    # Text, not str: rich would read brackets in a name as markup.
    Console(file=out).print(Text(line, style=style), soft_wrap=True)


def _terminal_width(out: TextIO) -> int | None:
    """Characters in a line of the terminal; None for a file or a pipe."""
    if not out.isatty():
        return None
    from shutil import get_terminal_size

    return get_terminal_size().columns
