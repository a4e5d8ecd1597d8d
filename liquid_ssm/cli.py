"""The command line: `liquid-ssm verify`, `select`, `explain`, `certificates`, `claims`, `certify`, `bench`, `info`,
`generate`, `train`, `evaluate`, `plot`.

Exit codes: 0 everything within bounds, 1 something was not (or could not be decided), 2 usage or input error.
Results go to standard output, progress and errors to standard error; with `--json -` standard output carries the
JSON alone.  Packages are imported where they are needed, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .bench.command import bench
from .certificates_command import certificates
from .claims.command import claims
from .console import check_folder, check_target, progress, write_json, writing
from .errors import LiquidSSMError, OracleInconclusive, ParameterError, unknown_name
from .generate.command import generate
from .info import info
from .problem import CORRELATIONS, DEFAULT_ORDER, DTYPES, MODES, ModeSpec
from .select_command import explain, select
from .train.command import train
from .train.evaluate_command import evaluate
from .train.plot_command import plot

if TYPE_CHECKING:
    from .signals import Signal

WITHIN, NOT_WITHIN, INPUT_ERROR = 0, 1, 2

DEFAULT_WINDOW = 32

app = typer.Typer(
    name="liquid-ssm",
    help="Liquid structural state-space models, checked against an exact reference.",
    no_args_is_help=True,
    add_completion=False,
    # An unexpected exception keeps Python's own traceback.
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: what follows the program's name; None for those of the process.

    Raises:
        SystemExit: always, with code 0, 1 or 2; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal's encoding cannot show; printing it must not fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=None if arguments is None else list(arguments), prog_name="liquid-ssm")
    except LiquidSSMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NOT_WITHIN if isinstance(error, OracleInconclusive) else INPUT_ERROR)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .environment import package_version

        print(f"liquid-ssm {package_version('liquid-ssm')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_COMPUTED = "What is computed (default: everything)"
_INPUT = "Signal and system"
_OUTPUT = "Output"

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="PATH",
        help="Write JSON; - for standard output, which then carries nothing else.",
        rich_help_panel=_OUTPUT,
    ),
]


@app.command()
def verify(
    signal: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="WAV, CSV, NPY or NPZ (with several arrays: file.npz:name). Default: the electrocardiogram of 1,024 "
            "samples that PyWavelets distributes.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="legs, fout, legs/fout, s4d-legs, s4d-inv, s4d-lin, dss or s5.", rich_help_panel=_INPUT
        ),
    ] = "s4d-lin",
    discretization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="euler, bilinear, zoh, adams-bashforth or bilinear-exact. Default: the one that goes with --init.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    n_state: Annotated[int, typer.Option(metavar="N", help="State size N per channel.", rich_help_panel=_INPUT)] = 64,
    channels: Annotated[int, typer.Option(metavar="H", help="System channels H.", rich_help_panel=_INPUT)] = 4,
    dt_min: Annotated[float, typer.Option(metavar="TIME", help="Smallest step size.", rich_help_panel=_INPUT)] = 1e-3,
    dt_max: Annotated[float, typer.Option(metavar="TIME", help="Largest step size.", rich_help_panel=_INPUT)] = 1e-1,
    seed: Annotated[
        int, typer.Option(metavar="K", min=0, help="Seed of the system and of the windows.", rich_help_panel=_INPUT)
    ] = 0,
    mode: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"{', '.join(MODES)}; repeatable.", rich_help_panel=_COMPUTED),
    ] = None,
    order: Annotated[
        int,
        typer.Option(metavar="P", help="Highest liquid order P of truncated, kb and pb.", rich_help_panel=_COMPUTED),
    ] = DEFAULT_ORDER,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="L",
            help=f"Newest inputs that a windowed correlation uses; 0 for no windowed rows. Default: {DEFAULT_WINDOW}, "
            "or the order if that is larger.",
            rich_help_panel=_COMPUTED,
        ),
    ] = None,
    no_window: Annotated[
        bool, typer.Option("--no-window", help="No windowed rows, as --window 0.", rich_help_panel=_COMPUTED)
    ] = False,
    correlations: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"{', '.join(CORRELATIONS)}; repeatable.", rich_help_panel=_COMPUTED),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A backend that `liquid-ssm info` lists; repeatable.", rich_help_panel=_COMPUTED
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"{', '.join(DTYPES)}; repeatable.", rich_help_panel=_COMPUTED),
    ] = None,
    oracle_budget: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Mode-steps that the enclosing reference T1 may take per row; beyond them it covers windows, and T3 "
            "every step.",
            rich_help_panel=_COMPUTED,
        ),
    ] = 2**21,
    html: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Write one HTML file, with plots (needs matplotlib).", rich_help_panel=_OUTPUT
        ),
    ] = None,
    no_plots: Annotated[
        bool, typer.Option("--no-plots", help="The HTML file without plots.", rich_help_panel=_OUTPUT)
    ] = False,
    plots: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write every plot as PNG and SVG into this folder; needs matplotlib.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json: JsonOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the verdict only.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Compute a signal by every mode and backend and compare each with the exact reference and a derived bound."""
    # Names, numbers and output paths are checked before anything is read or computed.
    for kind, given, allowed in (
        ("mode", mode, MODES),
        ("correlations", correlations, CORRELATIONS),
        ("dtype", dtype, DTYPES),
    ):
        _check_names(kind, given, allowed)
    newest = _window(order, window, no_window)
    if html == "-":
        raise ParameterError("--html needs the name of a file; only --json writes to standard output with '-'.")
    if no_plots and html is None:
        raise ParameterError("--no-plots is about the page of --html, which is not asked for; give --html PATH too.")
    for option, path in (("--json", json), ("--html", html)):
        check_target(option, path)
    drawn = plots is not None or (html is not None and not no_plots)
    if drawn:
        from .report_plots import need_matplotlib

        need_matplotlib("leave --plots out, and add --no-plots to --html")
    check_folder("--plots", plots)
    from .registry import backend_names

    names = backend_names()
    _check_names("backend", backend, names)
    from .discretize import DISCRETIZATIONS
    from .initialize import DEFAULT_DISCRETIZATION, INITIALIZATIONS, initialize

    _check_names("initialization", [init], INITIALIZATIONS)
    method = DEFAULT_DISCRETIZATION[init] if discretization is None else discretization
    _check_names("discretization", [method], DISCRETIZATIONS)

    from .signals import as_batch, default_signal, load_signal

    loaded = default_signal() if signal is None else load_signal(signal)
    system = initialize(init, n_channels=channels, n_state=n_state, dt_min=dt_min, dt_max=dt_max, seed=seed)
    u = as_batch(loaded, channels)

    out = sys.stderr if json == "-" else sys.stdout
    if not quiet:
        windows = "none" if newest is None else f"none and {newest}"
        products = " and ".join(correlations or CORRELATIONS)
        computed = f"{', '.join(mode) if mode else 'all of the system'}; order {order}, windows {windows}, {products}"
        print(f"signal    {_describe(loaded)}", file=out)
        print(f"u         batch {u.shape[0]} (signal channels) x {channels} (system channels) x {u.shape[2]}", file=out)
        print(
            f"system    {init}, {method}, n_state {system.n_state}, dt {dt_min:g} to {dt_max:g}, seed {seed}", file=out
        )
        print(f"modes     {computed}", file=out)
        print(f"backends  {', '.join(backend or names)}; {', '.join(dtype or DTYPES)}\n", file=out, flush=True)

    from .verify import verify as run

    with progress(quiet) as step:
        report = run(
            system,
            u,
            backends=backend or None,
            modes=mode or None,
            order=order,
            window=newest,
            correlations=correlations or None,
            dtypes=dtype or None,
            discretization=method,
            seed=seed,
            oracle_budget=oracle_budget,
            progress=step,
            **({"curves": True} if drawn else {}),
        )
    from .reproduce import command_line, file_hash

    asked = {
        "signal": loaded.name,
        "signal_description": loaded.description,
        "signal_rate": loaded.rate,
        "init": init,
        "discretization": method,
        "n_state": system.n_state,
        "n_channels": channels,
        "dt_min": dt_min,
        "dt_max": dt_max,
        "seed": seed,
    }
    if signal is not None:
        asked["signal_sha256"] = file_hash(signal)
    command = {
        "signal": signal,
        "init": init,
        "discretization": method,
        "n_state": n_state,
        "channels": channels,
        "dt_min": dt_min,
        "dt_max": dt_max,
        "seed": seed,
        "mode": mode,
        "order": order,
        "window": newest,
        "no_window": newest is None,
        "correlations": correlations,
        "backend": backend,
        "dtype": dtype,
        "oracle_budget": oracle_budget,
        "html": html,
        "no_plots": no_plots,
        "plots": plots,
    }
    report = replace(report, problem={**report.problem, **asked}, command=command_line("verify", command))

    if quiet:
        print(report.verdict, file=out)
    else:
        from rich.console import Console

        report.print(Console(file=out))
    with writing("--html", html):
        if html is not None:
            report.to_html(html, plots=not no_plots)
    with writing("--plots", plots):
        if plots is not None:
            report.to_plots(plots)
    write_json(report.to_json(), json)
    raise typer.Exit(WITHIN if report.passed else NOT_WITHIN)


app.command()(claims)
app.command()(bench)
app.command()(info)
app.command()(select)
app.command()(explain)
app.add_typer(certificates)
app.command()(generate)
app.command()(train)
app.command()(evaluate)
app.command()(plot)


@app.command()
def certify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:CLASS",
            help="A class without constructor arguments and with the method scan(a, b, c, u, state) -> "
            "(y, final_state), or a class of liquid_ssm.backend.Backend; importable from this folder.",
        ),
    ],
    examples: Annotated[int, typer.Option(metavar="N", min=1, help="Examples drawn per check.")] = 25,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time for one check; longer is a failure, and the run goes on.")
    ] = 60.0,
    only: Annotated[
        list[str] | None, typer.Option("--property", metavar="NAME", help="Only this property; repeatable.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"{', '.join(DTYPES)}; repeatable.")] = None,
    json: JsonOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the verdict only.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Run the property suite on a backend of your own and print what failed, with a minimal example."""
    from importlib.util import find_spec

    check_target("--json", json)
    if find_spec("hypothesis") is None:
        raise ParameterError("certify needs hypothesis, which is not installed. Run: pip install 'liquid-ssm[test]'")
    from .testing.certify import certify as run

    with progress(quiet) as step:
        report = run(
            target,
            max_examples=examples,
            time_limit=time_limit,
            properties=only or None,
            dtypes=dtype or None,
            progress=step,
        )
    out = sys.stderr if json == "-" else sys.stdout
    if not quiet:
        print(report.table(), end="\n\n", file=out)
    print(report.verdict, file=out)
    write_json(report.to_json(), json)
    raise typer.Exit(WITHIN if report.passed else NOT_WITHIN)


def _check_names(kind: str, given: Sequence[str] | None, allowed: Sequence[str]) -> None:
    for name in given or ():
        if name not in allowed:
            raise unknown_name(kind, name, allowed)


def _window(order: int, window: int | None, no_window: bool) -> int | None:
    """The window that `verify` gets, checked together with the order as the modes themselves do."""
    if no_window and window:
        raise ParameterError(f"--no-window and --window {window} exclude each other; give one of them.")
    if no_window or window == 0:
        return ModeSpec("kb", order).window
    return ModeSpec("kb", order, window=max(DEFAULT_WINDOW, order) if window is None else window).window


def _describe(signal: Signal) -> str:
    channels = f"{signal.n_channels} channel{'s' if signal.n_channels > 1 else ''}"
    return f"{signal.name}: {channels} of {signal.length} samples; {signal.description}"
