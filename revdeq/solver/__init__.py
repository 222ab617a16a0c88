"""One way to iterate per file."""

from revdeq.solver.anderson import Anderson as Anderson
from revdeq.solver.base import Iteration as Iteration, Solver as Solver, SteppingSolver as SteppingSolver
from revdeq.solver.broyden import Broyden as Broyden
from revdeq.solver.forward_backward import ForwardBackward as ForwardBackward
from revdeq.solver.gmres import GMRES as GMRES
from revdeq.solver.peaceman_rachford import PeacemanRachford as PeacemanRachford
from revdeq.solver.relaxed import Relaxed as Relaxed
from revdeq.solver.reversible import Reversible as Reversible
from revdeq.solver.splitting import Splittable as Splittable, Splitting as Splitting


__all__ = [
    "GMRES",
    "Anderson",
    "Broyden",
    "ForwardBackward",
    "Iteration",
    "PeacemanRachford",
    "Relaxed",
    "Reversible",
    "Solver",
    "Splittable",
    "Splitting",
    "SteppingSolver",
]
