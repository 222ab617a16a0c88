"""How a half step is done and undone."""

from revdeq.arithmetic.base import Arithmetic as Arithmetic
from revdeq.arithmetic.bitwise import Bitwise as Bitwise
from revdeq.arithmetic.floating import (
    Floating as Floating,
    half_step as half_step,
    undo_half_step as undo_half_step,
)
from revdeq.arithmetic.forms import (
    bits_per_component as bits_per_component,
    bitwise_form as bitwise_form,
    tape_size as tape_size,
)


__all__ = [
    "Arithmetic",
    "Bitwise",
    "Floating",
    "bits_per_component",
    "bitwise_form",
    "half_step",
    "tape_size",
    "undo_half_step",
]
