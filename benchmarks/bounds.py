"""The few statistics that a verdict needs: percentiles, and a bound of a median that assumes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

CONFIDENCE = 0.90


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def lower_bound(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """A value that the true median exceeds with at least `confidence`; None for too few values.

    The k-th smallest of n values lies above the median only when fewer than k values fell below it,
    which has the probability P(Binomial(n, 1/2) < k), whatever the distribution: this is the sign
    test turned round. The bound is the largest k whose probability is at most 1 - confidence: of ten
    values the third smallest (0.945), of four the smallest (0.9375).
    """
    n = len(values)
    below = 0.0
    rank = 0
    while rank < n and below + comb(n, rank) / 2**n <= 1 - confidence + 1e-12:
        below += comb(n, rank) / 2**n
        rank += 1
    return sorted(values)[rank - 1] if rank else None


def upper_bound(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """The same from above."""
    bound = lower_bound([-value for value in values], confidence)
    return None if bound is None else -bound
