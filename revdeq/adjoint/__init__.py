"""One way to differentiate per file."""

from revdeq.adjoint.base import Adjoint as Adjoint
from revdeq.adjoint.checkpointed import CheckpointedAdjoint as CheckpointedAdjoint
from revdeq.adjoint.implicit import ImplicitAdjoint as ImplicitAdjoint
from revdeq.adjoint.phantom import PhantomAdjoint as PhantomAdjoint
from revdeq.adjoint.reversible import ReversibleAdjoint as ReversibleAdjoint
from revdeq.adjoint.unrolled import UnrolledAdjoint as UnrolledAdjoint


__all__ = [
    "Adjoint",
    "CheckpointedAdjoint",
    "ImplicitAdjoint",
    "PhantomAdjoint",
    "ReversibleAdjoint",
    "UnrolledAdjoint",
]
