"""Worst rate over beta and the contraction constant, with the boundary of stability and what was measured on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

from reports.content import Drawing
from reports.figures.panels import axis_labels, grid, legend
from reports.figures.style import BLACK, VERMILLION
from reports.figures.svg import drawing, to_svg
from revdeq.rates import gradient_growth, worst_rate


_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_BITS = (0.5, 1.0, 2.0, 4.0, 8.0)
_POINTS = 120


def rates_heat(points: Sequence[tuple[float, float, bool]], *, name: str, caption: str) -> Drawing:
    """Two maps side by side: the worst rate of a step, and the bits that reversing it costs the gradient.

    Args:
        points: (beta, k, whether the rate measured on the worst map is below 1).
        name: name of the figure, unique in the report.
        caption: what the reader sees.
    """
    # Midpoints of an even number of cells: beta = 1, where nothing can be reversed, lies between two of them.
    betas = np.linspace(0.0, 2.0, _POINTS, endpoint=False) + 1.0 / _POINTS
    constants = np.linspace(0.0, 1.2, _POINTS // 2)
    beta, k = np.meshgrid(betas, constants)
    rate = worst_rate(torch.tensor(beta), torch.tensor(k))
    bits = torch.log2(gradient_growth(rate, torch.tensor(beta))).numpy()
    stable = constants[constants < 1.0]
    with drawing(name):
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], color=BLACK, linewidth=2.0), "boundary beta = 2 / (1 + k), k < 1 (T3)"),
            (Line2D([], [], color="white", marker="o", markeredgecolor=BLACK), "measured: converges"),
            (Line2D([], [], color=VERMILLION, linestyle="none", marker="x"), "measured: diverges"),
        ]
        figure, (left, right) = grid(2, columns=2, panel_height=3.4, entries=len(entries))
        # Room for the numbers of the scale on the right.
        figure.subplots_adjust(right=0.96)
        filled = left.contourf(betas, constants, rate.numpy(), levels=_LEVELS, cmap="viridis", extend="max")
        filled.set_edgecolor("face")
        forgotten = right.contourf(betas, constants, bits, levels=(0.0, *_BITS, 16.0), cmap="magma_r", extend="max")
        figure.colorbar(filled, ax=left, pad=0.02, fraction=0.06, ticks=_LEVELS[::2])
        figure.colorbar(forgotten, ax=right, pad=0.02, fraction=0.06, ticks=(0.0, *_BITS, 16.0), format="%g")
        for axes, said in ((left, "worst rate per step"), (right, "bits that reversing a step costs (M1)")):
            axes.set_title(said, loc="left", pad=4.0, fontweight="bold")
            axes.plot([*2.0 / (1.0 + stable), 1.0], [*stable, 1.0], color=BLACK, linewidth=2.0)
            axes.plot([0.0, 1.0], [1.0, 1.0], color=BLACK, linewidth=2.0)
            axes.set_xlim(0.0, 2.0)
            axes.set_xticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "0.5", "1", "1.5", "2"])
            axes.set_ylim(0.0, 1.2)
        for converges in (True, False):
            own = [(b, c) for b, c, good in points if good is converges]
            left.plot(
                [b for b, _ in own], [c for _, c in own], linestyle="none", marker="o" if converges else "x",
                color="white" if converges else VERMILLION, markeredgecolor=BLACK if converges else VERMILLION,
                markersize=4.5,
            )  # fmt: skip
        axis_labels(figure, "relaxation parameter beta", "contraction constant k")
        legend(figure, entries)
        return Drawing(name, to_svg(figure), caption)
