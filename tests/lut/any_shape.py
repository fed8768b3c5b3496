"""Layer shapes of every kind, for Hypothesis."""

from __future__ import annotations

from amc_latency.lut.shapes.precisions import PRECISIONS, why_not
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import ACTIVATIONS, FUSED_ACTIVATIONS, LayerShape
from hypothesis import strategies as st


@st.composite
def layer_shapes(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS)) -> LayerShape:
    """Any shape that can exist, of one of `kinds`."""
    kind = draw(st.sampled_from(kinds))
    per_group = draw(st.integers(1, 64)) if kind == "grouped" else 0
    parts = draw(st.integers(2, 30)) if kind in ("concat", "shuffle") else 1
    c_in = draw(st.integers(1, 1000)) * max(per_group, parts)
    c_out = c_in
    if kind in ("conv", "linear", "transposed"):
        c_out = draw(st.integers(1, 4096))
    elif kind == "grouped":
        c_out = c_in // per_group * draw(st.integers(1, 64))
    elif kind == "slice":
        c_out = draw(st.integers(1, c_in))
    activation = draw(st.sampled_from(ACTIVATIONS[1:] if kind == "activation" else FUSED_ACTIVATIONS))
    possible = [name for name in PRECISIONS if why_not(kind, activation, name) is None]
    precision = draw(st.sampled_from(possible))
    if kind == "linear":
        return LayerShape(kind, c_in, c_out, activation=activation, precision=precision)
    h, w = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    if not KINDS[kind].window:
        stride = draw(st.integers(1, 4)) if kind in ("nearest", "bilinear") else 1
        own = {"stride": stride, "activation": activation, "precision": precision, "parts": parts}
        return LayerShape(kind, c_in, c_out, h, w, **own)  # type: ignore[arg-type]
    kernel, dilation = draw(st.integers(1, 7)), 1 if kind == "transposed" else draw(st.integers(1, 3))
    kernel_w = draw(st.one_of(st.just(kernel), st.integers(1, 7)))
    reach, reach_w = (dilation * (side - 1) + 1 for side in (kernel, kernel_w))
    padding, padding_w = draw(st.integers(0, reach - 1)), draw(st.integers(0, reach_w - 1))
    stride, end = draw(st.integers(1, 4)), draw(st.integers(0, min(reach, reach_w) - 1))
    if kind == "transposed":
        # Of 14 rows and more at least one is left, whatever the padding.
        h, w, end = h + 14, w + 14, draw(st.integers(0, stride - 1))
    if (kernel, padding) == (kernel_w, padding_w):
        kernel_w = padding_w = 0
    return LayerShape(
        kind,
        c_in,
        c_out,
        max(h, reach - 2 * padding - end),
        max(w, reach_w - 2 * (padding_w if kernel_w else padding) - end),
        kernel,
        stride,
        padding,
        activation,
        precision,
        end=end,
        dilation=dilation,
        per_group=per_group,
        kernel_w=kernel_w,
        padding_w=padding_w,
    )
