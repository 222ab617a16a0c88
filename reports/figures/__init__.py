"""Figures as inline SVG, one per file."""

from reports.figures.convergence import convergence as convergence
from reports.figures.gradient_error import gradient_error as gradient_error
from reports.figures.memory import memory as memory
from reports.figures.ratios import ratios as ratios
from reports.figures.reconstruction import reconstruction as reconstruction
