"""How far under the target a search has to stay so that its result is fast enough with a given probability."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from amc_latency.errors import UserError
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.search.costs.clamp import Clamp, rounded_up
from amc_latency.search.costs.costs import Counts
from amc_latency.search.solvers.baselines import uniform_policies


@dataclass(frozen=True)
class UpperBound:
    """What a policy's measured milliseconds stay under with probability `confidence`.

    The clamp adds up layers, and a bound does not add up: so the clamp is given a limit with the margin of the widest
    uniform policy that holds, and each policy that may win is asked for its own bound. Raises `UserError` for a table
    that cannot tell how far its predictions may be off.
    """

    clamp: Clamp
    predictor: Predictor
    confidence: float
    _known: dict[Counts, float] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes, table = self.clamp.costs.architecture.shapes(), self.predictor.table
        instead = "search with `margin_pct` in place of `confidence`"
        if table.identity.estimated:
            raise UserError(f"{table.path} is estimated, not measured, and so cannot tell how far it is off: {instead}")
        if self.predictor.standard_error_ms(shapes) is None:
            networks = self.predictor.calibration(shapes).networks
            raise UserError(
                f"{table.path} has {networks} whole networks of this kind, too few to tell how far a prediction may "
                f"be off: {instead}"
            )

    def ms(self, counts: Counts) -> float:
        """The bound of one policy."""
        if counts not in self._known:
            costs = self.clamp.costs
            margin_ms = self.predictor.margin_ms(costs.architecture.shapes(counts), self.confidence)
            assert margin_ms is not None, "a calibration that holds for the uncut network holds for all cuts"
            self._known[counts] = costs.ms(counts) + margin_ms
        return self._known[counts]

    def start(self, target_ms: float) -> Counts | None:
        """The widest uniform policy whose bound holds, or else the fastest policy there is; None if that doesn't."""
        return next((counts for counts in self._candidates if self.ms(counts) <= target_ms), None)

    def limit_ms(self, target_ms: float) -> float | None:
        """What may be predicted, so that a policy is about as fast as its bound asks; None if no policy holds."""
        counts = self.start(target_ms)
        if counts is None:
            return None
        predicted_ms = self.clamp.costs.ms(counts)
        return max(predicted_ms, target_ms * predicted_ms / self.ms(counts))

    def check(self, target_ms: float) -> None:
        """Raise `UserError` for a target that no policy holds."""
        if self.start(target_ms) is None:
            raise UserError(
                f"a target of {target_ms:.6g} ms is out of reach with `confidence` {self.confidence:g}: the fastest "
                f"network that can be cut from this one is predicted at {self.clamp.fastest_ms:.6g} ms, and to stay "
                f"under {rounded_up(min(map(self.ms, self._candidates))):.6g} ms with that probability; raise the "
                "target to that or more, or lower `confidence`"
            )

    def text(self, target_ms: float) -> str:
        """What margin is held, in words."""
        limit_ms = self.limit_ms(target_ms)
        assert limit_ms is not None, "checked before"
        return (
            f"predictions are held to {limit_ms:.4f} ms, {100 * (1 - limit_ms / target_ms):.1f} % under the target, "
            f"which is then met with a probability of {100 * self.confidence:g} %"
        )

    @cached_property
    def _candidates(self) -> list[Counts]:
        costs = self.clamp.costs
        clamp = self.clamp.with_target(self.clamp.fastest_ms)
        fastest: Counts = ()
        while len(fastest) < costs.groups:
            fastest = (*fastest, clamp.nearest(fastest, 0.0))
        return [*uniform_policies(costs), fastest]
