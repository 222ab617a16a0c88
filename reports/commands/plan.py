"""`revdeq plan`: which beta and how many steps a wished gradient error takes."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from reports.commands.status import COULD_NOT_RUN, FALLS_SHORT, HOLDS


Precision = Literal["float64", "float32", "float16", "bfloat16"]


def plan(
    contraction_constant: Annotated[float, typer.Option(help="k, the Lipschitz constant of f in z")],
    spectrum: Annotated[
        Literal["any", "real", "imaginary"], typer.Option(help="what is known of the eigenvalues of df/dz")
    ] = "any",
    dtype: Annotated[Precision, typer.Option(help="dtype of f and of z0")] = "float32",
    state_dtype: Annotated[
        Precision | None, typer.Option(help="dtype of the coupled states, float64 if not said; rules out bitwise")
    ] = None,
    arithmetic: Annotated[
        Literal["floating", "bitwise"] | None,
        typer.Option(help="of the states; if not said, bitwise where it must be"),
    ] = None,
    gradient_error: Annotated[float, typer.Option(help="relative error that is wished")] = 1e-3,
    target: Annotated[
        Literal["fixed-point", "n-step"], typer.Option(help="the gradient that is meant; n-step needs --steps")
    ] = "fixed-point",
    beta: Annotated[float | None, typer.Option(help="a fixed relaxation parameter")] = None,
    steps: Annotated[int | None, typer.Option(help="a fixed number of steps")] = None,
    max_steps: Annotated[int, typer.Option(help="most steps to consider")] = 256,
) -> None:
    """Print a plan; status 1 where the wish cannot be met, and then what would meet it."""
    # Imported here, because torch takes seconds and the commands that only read results do without it.
    import torch

    from revdeq._plan import PlanError, plan as plan_solve

    try:
        made = plan_solve(
            contraction_constant,
            spectrum=spectrum,
            dtype=getattr(torch, dtype),
            state_dtype=None if state_dtype is None else getattr(torch, state_dtype),
            arithmetic=arithmetic,
            gradient_error=gradient_error,
            target=target,
            beta=beta,
            num_steps=steps,
            max_steps=max_steps,
        )
    except PlanError as error:
        typer.echo(f"revdeq: {error}", err=True)
        raise typer.Exit(FALLS_SHORT) from None
    except ValueError as error:
        typer.echo(f"revdeq: {error}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    typer.echo(str(made))
    raise typer.Exit(HOLDS)
