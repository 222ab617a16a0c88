"""Arithmetics of the reference: multiprecision, and a perturbed one that imitates a format's rounding."""

from verify.reference.arithmetic.extended import Extended as Extended
from verify.reference.arithmetic.multiprecision import Multiprecision as Multiprecision
from verify.reference.arithmetic.perturbed import Perturbed as Perturbed
from verify.reference.arithmetic.protocol import (
    Arithmetic as Arithmetic,
    Array as Array,
    BoolArray as BoolArray,
    Undecided as Undecided,
)
