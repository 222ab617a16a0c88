"""Hypothesis strategies for maps whose contraction constant or spectrum is known exactly, in rational numbers.

Every number drawn is a `fractions.Fraction`; a map works on lists of any scalars that can be added, multiplied and
compared, so the same draw runs exactly (python-flint's fmpq), in ball arithmetic, and in floating point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from hypothesis import strategies as st


Vector = list[Any]
Norm = Literal["2", "inf"]
SpectrumKind = Literal["real", "imaginary", "general", "defective"]
SPECTRUM_KINDS: tuple[SpectrumKind, ...] = ("real", "imaginary", "general", "defective")

# Rational points of the unit circle: (cos, sin) of turns by angles of many sizes.
_PYTHAGOREAN = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (0, 1, 1), (1, 0, 1))


@dataclass(frozen=True)
class Layer:
    """A map that does not expand distances in the norms that it names.

    Attributes:
        name: identifies the kind, for messages and for the tests of the strategies.
        norms: the norms in which it is nonexpansive.
        linear: whether it is linear.
        apply: takes a list of scalars and returns one of the same length; the second argument converts a Fraction.
    """

    name: str
    norms: frozenset[Norm]
    linear: bool
    apply: Callable[[Vector, Callable[[Fraction], Any]], Vector]


@dataclass(frozen=True)
class Contraction:
    """f(z) = k (g(z - z*) - g(0)) + z*, g a composition of nonexpansive layers: fixed point z*, Lipschitz constant k.

    Attributes:
        k: contraction constant.
        z_star: fixed point.
        layers: the composition, applied in this order.
        norm: the norm in which f has the constant k.
    """

    k: Fraction
    z_star: tuple[Fraction, ...]
    layers: tuple[Layer, ...]
    norm: Norm

    @property
    def dimension(self) -> int:
        """Number of components of z."""
        return len(self.z_star)

    @property
    def linear(self) -> bool:
        """Whether f is affine."""
        return all(layer.linear for layer in self.layers)

    def __call__(self, z: Vector, convert: Callable[[Fraction], Any] = lambda number: number) -> Vector:
        """Return f(z); `convert` takes the map's own rational numbers to the scalars of z."""
        centre = [convert(c) for c in self.z_star]
        value = self._compose([a - c for a, c in zip(z, centre, strict=True)], convert)
        origin = self._compose([convert(Fraction(0)) for _ in centre], convert)
        k = convert(self.k)
        return [k * (v - o) + c for v, o, c in zip(value, origin, centre, strict=True)]

    def _compose(self, vector: Vector, convert: Callable[[Fraction], Any]) -> Vector:
        for layer in self.layers:
            vector = layer.apply(vector, convert)
        return vector


@dataclass(frozen=True)
class LinearMap:
    """A rational matrix with known eigenvalues.

    Attributes:
        matrix: rows of Fractions.
        eigenvalues: (real, imaginary) parts, with multiplicity.
        kind: of the spectrum.
        normal: whether the matrix commutes with its transpose.
    """

    matrix: tuple[tuple[Fraction, ...], ...]
    eigenvalues: tuple[tuple[Fraction, Fraction], ...]
    kind: SpectrumKind
    normal: bool

    @property
    def dimension(self) -> int:
        """Number of rows."""
        return len(self.matrix)


def fractions_between(low: Fraction, high: Fraction, largest_denominator: int = 64) -> st.SearchStrategy[Fraction]:
    """Rational numbers in [low, high]."""
    return st.fractions(low, high, max_denominator=largest_denominator)


def constants() -> st.SearchStrategy[Fraction]:
    """Contraction constants in [0, 1), those close to 1 included."""
    return st.one_of(
        st.sampled_from([Fraction(9, 10), Fraction(99, 100), Fraction(1, 2), Fraction(0)]),
        fractions_between(Fraction(0), Fraction(63, 64)),
    )


def betas(low: Fraction = Fraction(1, 64), high: Fraction = Fraction(127, 64)) -> st.SearchStrategy[Fraction]:
    """Relaxation parameters in [low, high] without 1, those of the acceptance fixtures and close to 1 included."""
    familiar = [Fraction(n, 100) for n in (25, 30, 50, 75, 80, 95, 99, 101, 120, 125, 150, 190)]
    return st.one_of(
        st.sampled_from([b for b in familiar if low <= b <= high] or [low]), fractions_between(low, high)
    ).filter(lambda b: b != 1)


def converging_pairs() -> st.SearchStrategy[tuple[Fraction, Fraction]]:
    """Pairs (beta, k) with 0 < beta < 2/(1+k), k < 1, beta different from 1; close to the edge as well."""

    def inside(k: Fraction) -> st.SearchStrategy[tuple[Fraction, Fraction]]:
        edge = 2 / (1 + k)
        shares = st.one_of(fractions_between(Fraction(1, 32), Fraction(31, 32)), st.just(Fraction(999, 1000)))
        return shares.map(lambda share: (edge * share, k)).filter(lambda pair: pair[0] != 1)

    return constants().flatmap(inside)


def diverging_pairs() -> st.SearchStrategy[tuple[Fraction, Fraction]]:
    """Pairs (beta, k) outside the region of T3: beta >= 2/(1+k) with any k, or k >= 1 with any beta."""

    def outside(k: Fraction) -> st.SearchStrategy[tuple[Fraction, Fraction]]:
        lowest = 2 / (1 + k) if k < 1 else Fraction(1, 64)
        return fractions_between(Fraction(0), Fraction(2)).map(lambda extra: (lowest + extra, k))

    wide = fractions_between(Fraction(1), Fraction(3))
    return st.one_of(constants(), wide).flatmap(outside).filter(lambda pair: pair[0] != 1)


def vectors(dimension: int, size: int = 4) -> st.SearchStrategy[tuple[Fraction, ...]]:
    """Rational vectors with components in [-size, size]; the zero vector and unit vectors included."""
    component = st.one_of(
        st.integers(-size, size).map(Fraction), fractions_between(Fraction(-size), Fraction(size), 16)
    )
    return st.lists(component, min_size=dimension, max_size=dimension).map(tuple)


@st.composite
def contractions(
    draw: st.DrawFn, norm: Norm = "2", max_dimension: int = 4, *, transcendental: bool = False
) -> Contraction:
    """Contractions of known constant: compositions of one to four layers that do not expand `norm`.

    Args:
        draw: supplied by Hypothesis.
        norm: "2" or "inf".
        max_dimension: most components.
        transcendental: whether tanh is among the layers; it needs scalars with a `tanh` method.
    """
    dimension = draw(st.integers(1, max_dimension), label="dimension")
    layers = draw(st.lists(_layers(norm, dimension, transcendental), min_size=1, max_size=4), label="layers")
    return Contraction(draw(constants(), label="k"), draw(vectors(dimension), label="z_star"), tuple(layers), norm)


@st.composite
def linear_maps(
    draw: st.DrawFn,
    kind: SpectrumKind | None = None,
    *,
    normal: bool | None = None,
    max_modulus: Fraction = Fraction(63, 64),
) -> LinearMap:
    """Rational matrices of dimension 1 to 4 with a spectrum of the given kind and a rational similarity.

    Args:
        draw: supplied by Hypothesis.
        kind: of the spectrum; None draws it.
        normal: True for an orthogonal similarity, False for a triangular one; None draws it.
        max_modulus: bound on |real| and |imaginary| parts, with a denominator of at most 64.
    """
    if kind is None:
        kind = draw(st.sampled_from(SPECTRUM_KINDS[:3] if normal else SPECTRUM_KINDS), label="kind")
    if normal is None:
        normal = kind != "defective" and draw(st.booleans(), label="normal")
    if normal and kind == "defective":
        raise ValueError("a defective matrix is never normal: take another kind or normal=False")
    part = st.one_of(st.just(max_modulus), st.just(-max_modulus), fractions_between(-max_modulus, max_modulus, 64))
    blocks: list[list[list[Fraction]]] = []
    eigenvalues: list[tuple[Fraction, Fraction]] = []
    for _ in range(draw(st.integers(1, 4 if kind == "real" else 2), label="blocks")):
        real = Fraction(0) if kind == "imaginary" else draw(part)
        imaginary = draw(part) if kind in ("imaginary", "general") else Fraction(0)
        if kind == "real":
            blocks.append([[real]])
            eigenvalues.append((real, imaginary))
        elif kind == "defective":
            blocks.append([[real, Fraction(1)], [Fraction(0), real]])
            eigenvalues += [(real, imaginary)] * 2
        else:
            blocks.append([[real, -imaginary], [imaginary, real]])
            eigenvalues += [(real, imaginary), (real, -imaginary)]
    core = _block_diagonal(blocks)
    dimension = len(core)
    if normal:
        direction = draw(vectors(dimension, 3), label="mirror")
        matrix = _conjugate_by_mirror(core, direction)
    else:
        entries = draw(st.lists(st.integers(-2, 2), min_size=dimension, max_size=dimension), label="shear")
        matrix = _conjugate_by_shear(core, entries)
    return LinearMap(tuple(tuple(row) for row in matrix), tuple(eigenvalues), kind, normal)


def _layers(norm: Norm, dimension: int, transcendental: bool) -> st.SearchStrategy[Layer]:
    both: frozenset[Norm] = frozenset(("2", "inf"))
    signs = st.lists(st.sampled_from((-1, 1)), min_size=dimension, max_size=dimension)
    kinds: list[st.SearchStrategy[Layer]] = [
        st.tuples(st.permutations(range(dimension)), signs).map(lambda drawn: _signed_permutation(*drawn)),
        fractions_between(Fraction(0), Fraction(2), 8).map(_soft_threshold),
        st.just(Layer("absolute", both, False, lambda v, _: [abs(x) for x in v])),
        st.just(Layer("relu", both, False, lambda v, convert: [_larger(x, convert(Fraction(0))) for x in v])),
        st.just(Layer("identity", both, True, lambda v, _: v)),
        vectors(dimension, 2).map(_shift),
    ]
    if transcendental:
        kinds.append(st.just(Layer("tanh", both, False, lambda v, _: [x.tanh() for x in v])))
    if norm == "inf":
        kinds.append(st.just(Layer("max-pool", frozenset(("inf",)), False, _max_pool)))
    if dimension > 1:
        kinds.append(st.just(Layer("average", both, True, _average)))
    if dimension > 1 and norm == "2":
        pairs = st.permutations(range(dimension)).map(lambda order: (order[0], order[1]))
        kinds.append(st.tuples(pairs, st.sampled_from(_PYTHAGOREAN)).map(lambda drawn: _rotation(*drawn)))
    return st.one_of(kinds)


def _signed_permutation(order: Sequence[int], signs: Sequence[int]) -> Layer:
    return Layer(
        "signed permutation",
        frozenset(("2", "inf")),
        True,
        lambda v, _: [sign * v[i] for i, sign in zip(order, signs, strict=True)],
    )


def _soft_threshold(level: Fraction) -> Layer:
    def apply(v: Vector, convert: Callable[[Fraction], Any]) -> Vector:
        t, zero = convert(level), convert(Fraction(0))
        return [_larger(x - t, zero) - _larger(-x - t, zero) for x in v]

    return Layer("soft-threshold", frozenset(("2", "inf")), False, apply)


def _shift(offset: Sequence[Fraction]) -> Layer:
    return Layer(
        "shift",
        frozenset(("2", "inf")),
        True,
        lambda v, convert: [x + convert(o) for x, o in zip(v, offset, strict=True)],
    )


def _rotation(pair: tuple[int, int], triple: tuple[int, int, int]) -> Layer:
    i, j = pair
    a, b, c = triple

    def apply(v: Vector, convert: Callable[[Fraction], Any]) -> Vector:
        cosine, sine = convert(Fraction(a, c)), convert(Fraction(b, c))
        turned = list(v)
        turned[i], turned[j] = cosine * v[i] - sine * v[j], sine * v[i] + cosine * v[j]
        return turned

    return Layer("rotation", frozenset(("2",)), True, apply)


def _max_pool(v: Vector, _: Callable[[Fraction], Any]) -> Vector:
    return [_larger(x, y) for x, y in zip(v, v[1:] + v[:1], strict=True)]


def _average(v: Vector, convert: Callable[[Fraction], Any]) -> Vector:
    half = convert(Fraction(1, 2))
    return [half * (x + y) for x, y in zip(v, v[1:] + v[:1], strict=True)]


def _larger(x: Any, y: Any) -> Any:
    return x if x >= y else y


def _block_diagonal(blocks: Sequence[Sequence[Sequence[Fraction]]]) -> list[list[Fraction]]:
    dimension = sum(len(block) for block in blocks)
    matrix = [[Fraction(0)] * dimension for _ in range(dimension)]
    start = 0
    for block in blocks:
        for i, row in enumerate(block):
            for j, entry in enumerate(row):
                matrix[start + i][start + j] = entry
        start += len(block)
    return matrix


def _multiply(left: Sequence[Sequence[Fraction]], right: Sequence[Sequence[Fraction]]) -> list[list[Fraction]]:
    columns = list(zip(*right, strict=True))
    return [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in columns] for row in left]


def _conjugate_by_mirror(core: list[list[Fraction]], direction: Sequence[Fraction]) -> list[list[Fraction]]:
    """H core H with the reflection H = I - 2 v v^T / (v.v), which is orthogonal, rational and its own inverse."""
    length = sum((x * x for x in direction), Fraction(0))
    if length == 0:
        return core
    size = range(len(core))
    mirror = [[Fraction(int(i == j)) - 2 * direction[i] * direction[j] / length for j in size] for i in size]
    return _multiply(_multiply(mirror, core), mirror)


def _conjugate_by_shear(core: list[list[Fraction]], entries: Sequence[int]) -> list[list[Fraction]]:
    """S core S^-1 with S = I + e_1 s^T, s_1 = 0, whose inverse is I - e_1 s^T."""
    size = range(len(core))
    shear = [[Fraction(int(i == j) + (entries[j] if i == 0 < j else 0)) for j in size] for i in size]
    inverse = [[Fraction(int(i == j) - (entries[j] if i == 0 < j else 0)) for j in size] for i in size]
    return _multiply(_multiply(shear, core), inverse)
