"""Chains of free factors between spaces of different dimension: their spectral curve and their atoms.

Dimensions are over that of the last space, in which λ lives. A compression to fewer dimensions is a free projection; an
embedding into more leaves the non-zero eigenvalues as they are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rmtbn.theory.free.curve import PointFactor, SpectralCurve
from rmtbn.theory.free.factors import Factor

EQUAL = 1e-12  # difference of ln λ below which two atoms are one
SAME = 1e-14  # relative difference below which two poles are one: the rounding of dimension·share


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A factor in its place: `count` times, in a space of `dimension`."""

    factor: Factor
    dimension: float = 1.0
    count: float = 1.0


def spectral_curve(chain: Sequence[Placed], *, start: float = 1.0) -> SpectralCurve:
    """Multiply the factors; `start` is the dimension of the first space.

    A factor of mean 1 in its own space keeps the mean of λ: what an embedding adds in dimension is its own business.
    """
    rank = min([1.0, start, *(place.factor.rank * place.dimension for place in chain)])
    powers = _merged([(start, 1.0), *_powers(chain)], rank)
    return SpectralCurve(
        log_mean=float(sum(place.count * place.factor.log_mean for place in chain)),
        rank=rank,
        poles=np.array([pole for pole, _ in powers]),
        powers=np.array([power for _, power in powers]),
        factors=tuple(
            PointFactor(law=place.factor.law, dimension=place.dimension, count=float(place.count))
            for place in chain
            if place.factor.law is not None
        ),
        terms=tuple(
            term.placed(dimension=place.dimension, count=place.count) for place in chain for term in place.factor.terms
        ),
    )


def _powers(chain: Sequence[Placed]) -> Iterable[tuple[float, float]]:
    """Each factor's (c, e); a factor given by points has T = ζM/(1 + M), of which ζM is counted with its points."""
    for place in chain:
        own = place.factor.powers if place.factor.law is None else ((1.0, -1.0),)
        yield from ((pole * place.dimension, power * place.count) for pole, power in own)


def _merged(powers: Iterable[tuple[float, float]], rank: float) -> list[tuple[float, float]]:
    """Add up the exponents of equal poles, drop those that cancel, and let what is at the rank be the rank."""
    merged: list[tuple[float, float]] = [(rank, 0.0)]
    for pole, power in sorted(powers):
        last, total = merged[-1]
        if abs(pole - last) <= SAME * last:
            merged[-1] = (last, total + power)
        else:
            merged.append((pole, power))
    return [(pole, power) for pole, power in merged if power]


def log_atoms(
    chain: Sequence[Placed], *, start: float = 1.0
) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """Compute the atoms but for zero, ((ln λ, mass), ...), and the ln λ of those whose mass has just gone, ascending.

    Eigenspaces of free factors meet in the dimension in which they must (Bercovici & Voiculescu 1998): each factor
    takes away the dimension of its other eigenvalues. Where that leaves nothing exactly, the density has a
    singularity.
    """
    spaces = {0.0: start}
    for place in chain:
        spaces = _after(spaces, place)
    atoms = tuple((_there_and_back(x), size) for x, size in sorted(spaces.items()) if size > SAME)
    return atoms, tuple(x for x, size in sorted(spaces.items()) if size <= SAME)


def _there_and_back(x: float) -> float:
    """Return x, or the number an ulp or two below it that does not exceed ln e^x: P(λ <= e^x) must hold the atom."""
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        while math.isfinite(back := float(np.log(np.exp(x)))) and back < x:
            x = back
    return x


def _after(spaces: dict[float, float], place: Placed) -> dict[float, float]:
    atoms = place.factor.atoms
    if len(atoms) == 1:
        ((log_value, mass),) = atoms
        lost = place.count * place.dimension * (1 - mass)
        return {x + place.count * log_value: size - lost for x, size in spaces.items() if size - lost > -SAME}
    for _ in range(round(place.count) if atoms else 0):
        largest = max(spaces.values(), default=0.0)
        heavy = [(x, mass) for x, mass in atoms if largest - place.dimension * (1 - mass) > -SAME]
        met = [
            (x + log_value, size - place.dimension * (1 - mass))
            for x, size in spaces.items()
            for log_value, mass in heavy
        ]
        spaces = _joined([(x, left) for x, left in met if left > -SAME])
    return spaces if atoms else {}


def _joined(spaces: list[tuple[float, float]]) -> dict[float, float]:
    """Add up the dimensions of equal products, which may differ by rounding."""
    joined: dict[float, float] = {}
    last = -math.inf
    for x, size in sorted(spaces):
        if x - last > EQUAL * (1 + abs(x)):
            last = x
        joined[last] = joined.get(last, 0.0) + size
    return joined
