"""How near to the best single calibrator can any rule stay? The least largest excess, where rows are many.

    python benchmarks/calibrator_floor.py [--rows 50] [--rounds 2000]

With many rows a head that is wrong in slope and intercept of its log-odds is a point in the plane, and its calibration
rows are that point with standard normal noise (the log-likelihood is a parabola there). A map that is off by d costs
|d|^2 / (2 rows) nats. The best single method of a head costs the least of |point|^2 (none), 1 + intercept^2
(temperature) and 2 (Platt), over 2 rows. For any distribution of heads, no rule has a smaller mean excess over that
than the posterior mean; so the largest excess of any rule is at least as large. The distribution is made worse and
worse for the rule by multiplicative weights; what its posterior mean costs at most bounds the answer from above.
Prints both bounds.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Heads: points of a quarter of the plane, in standard errors, mirrored to the other three.
LARGEST, HEAD_STEP = 6.0, 0.5
#: Grid of what the rows say.
SEEN_STEP = 0.2


def bounds(num_rounds: int) -> tuple[float, float]:
    """Lower and upper bound of the least largest excess, in units of 1 / (2 rows) nats."""
    axis = np.arange(0, LARGEST + 1e-9, HEAD_STEP)
    head_H2 = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    best_single_H = np.minimum(np.minimum((head_H2**2).sum(axis=1), 1 + head_H2[:, 1] ** 2), 2)
    seen_axis = np.arange(0, LARGEST + 4, SEEN_STEP)
    seen_S2 = np.stack(np.meshgrid(seen_axis, seen_axis, indexing="ij"), axis=-1).reshape(-1, 2)
    # Four mirrored quarters; the points on an axis are shared by two of them.
    area_S = 4 * SEEN_STEP**2 * np.where(seen_S2 == 0, 0.5, 1.0).prod(axis=1)
    even_SH, odd_SH = zip(*(_mirrored(seen_S2[:, n], head_H2[:, n]) for n in (0, 1)), strict=True)
    density_SH = even_SH[0] * even_SH[1]
    moments = (odd_SH[0] * even_SH[1], even_SH[0] * odd_SH[1])
    weight_H = np.full(len(head_H2), 1 / len(head_H2))
    lower, upper = -np.inf, np.inf
    for round_ in range(num_rounds):
        marginal_S = density_SH @ weight_H
        rule_S2 = [moment_SH @ weight_H / marginal_S for moment_SH in moments]
        cost_H = ((rule_S2[0] ** 2 + rule_S2[1] ** 2) * area_S) @ density_SH + (head_H2**2).sum(axis=1)
        cost_H -= 2 * sum((rule_S * area_S) @ moment_SH for rule_S, moment_SH in zip(rule_S2, moments, strict=True))
        excess_H = cost_H - best_single_H
        lower, upper = max(lower, float(weight_H @ excess_H)), min(upper, float(excess_H.max()))
        weight_H *= np.exp(0.3 * (excess_H - excess_H.max()) / (1 + round_ / 400))
        weight_H /= weight_H.sum()
    return lower, upper


def _mirrored(seen_S: FloatArray, head_H: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of a coordinate and its mirror image: mean density, and mean of the coordinate times its density; (S, H)."""
    there, mirrored = (
        np.exp(-0.5 * (seen_S[:, None] - sign * head_H[None]) ** 2) / np.sqrt(2 * np.pi) for sign in (1, -1)
    )
    return (there + mirrored) / 2, (there - mirrored) / 2 * head_H[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2000)
    options = parser.parse_args()
    lower, upper = (bound / (2 * options.rows) for bound in bounds(options.rounds))
    print(f"{options.rows} rows: the largest excess of the best rule is {lower:.5f} to {upper:.5f} nats a row")


if __name__ == "__main__":
    main()
