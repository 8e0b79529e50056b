"""The least of a smooth convex function in a box, exact to rounding in a few passes over the rows.

Shape legend: P parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import NumericsError

FloatArray = npt.NDArray[np.float64]

#: Value, gradient (P) and Hessian (P x P) at parameters (P).
Objective = Callable[[FloatArray], tuple[float, FloatArray, FloatArray]]

#: Passes after which something is wrong: ten suffice as a rule.
MAX_PASSES = 500

#: Nats that a step still promises to win at which parameters are exact to about 1e-10.
TOLERANCE = 1e-21

#: Nats that nobody can tell from none: below them, the search also ends where rounding keeps steps from winning more.
NEGLIGIBLE = 1e-12


def minimise(objective: Objective, start_P: FloatArray, lower_P: FloatArray, upper_P: FloatArray) -> FloatArray:
    """Newton steps, projected onto the box, each halved until it leads down.

    Args:
        objective: a convex function.
        start_P: where to begin; moved into the box.
        lower_P: lower bounds, minus infinity where there are none.
        upper_P: upper bounds, infinity where there are none.

    Returns:
        The parameters of the least value. Where several share it, as when a parameter has no effect, one of them.

    Raises:
        NumericsError: the search did not end.

    Source: Bertsekas 1982, Projected Newton methods for optimization problems with simple constraints.
    """
    at_P = np.clip(start_P, lower_P, upper_P)
    value, gradient_P, hessian_PP = objective(at_P)
    to_win = np.inf
    for _ in range(MAX_PASSES):
        held_P = ((at_P <= lower_P) & (gradient_P > 0)) | ((at_P >= upper_P) & (gradient_P < 0))
        step_P = _newton_step(gradient_P, hessian_PP, ~held_P)
        before, to_win = to_win, float(-gradient_P @ step_P)
        if to_win <= TOLERANCE or before / 2 <= to_win <= NEGLIGIBLE:
            return at_P
        length = 1.0
        while True:
            next_P = np.clip(at_P + length * step_P, lower_P, upper_P)
            promised = float(gradient_P @ (next_P - at_P))
            next_value, next_gradient_P, next_hessian_PP = objective(next_P)
            # Near the least value, decreases drown in rounding; a full step is then as good as its gradient.
            if next_value <= value + 1e-4 * promised + 4 * np.finfo(np.float64).eps * max(1.0, abs(value)):
                break
            length /= 2
        if np.array_equal(next_P, at_P):
            return at_P
        at_P, value, gradient_P, hessian_PP = next_P, next_value, next_gradient_P, next_hessian_PP
    raise NumericsError(
        f"calibration: no least likelihood after {MAX_PASSES} steps; set calibrate.method to temperature"
    )


def _newton_step(gradient_P: FloatArray, hessian_PP: FloatArray, free_P: npt.NDArray[np.bool_]) -> FloatArray:
    step_P = np.zeros_like(gradient_P)
    if free_P.any():
        curvature_PP = hessian_PP[np.ix_(free_P, free_P)]
        # A parameter without effect has a singular Hessian; a trace of damping, in units of each parameter, mends it.
        diagonal_P = np.diag(curvature_PP)
        damping_PP = np.diag(1e-11 * diagonal_P + 1e-100)
        step_P[free_P] = -np.linalg.solve(curvature_PP + damping_PP, gradient_P[free_P])
    return step_P
