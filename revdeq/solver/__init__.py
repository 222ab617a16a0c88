"""One way to iterate per file."""

from revdeq.solver.base import Solver as Solver
from revdeq.solver.relaxed import Relaxed as Relaxed
from revdeq.solver.reversible import Reversible as Reversible
