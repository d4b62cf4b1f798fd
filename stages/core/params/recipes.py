"""What a graph is quantized to, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stages.core.params.section import Key, Section


class _Recipe(Section):
    """What every recipe has.

    graph: what it is applied to. `optimize` may hold ONNX Runtime's own operators, which others and its older versions
    lack; `portable` has those of the ONNX standard alone.
    """

    graph: Literal["simplify", "optimize", "portable"] = "simplify"


class _CalibratedRecipe(_Recipe):
    """What a recipe has that asks how large activations are.

    calibration_feeds: inputs of each graph that tell it.
    """

    calibration_feeds: int = Field(default=64, ge=1)


class _Int8Recipe(_CalibratedRecipe):
    """What both kinds of INT8 have.

    op_types: the operators to quantize. `LSTM` becomes one of ONNX Runtime's own, in dynamic recipes on `optimize`.
    min_outputs: layers with fewer outputs stay in fp32. min_intensity: so do convolutions that multiply fewer times for
    each value that they read or write, where to convert the values costs more than INT8 saves (arithmetic intensity:
    Williams et al., "Roofline", 2009). exclude_nodes: and these, named as in the model's graphs.
    smooth: how much of a channel's outliers moves from the activations into the weights, 0 to 1, or null for none:
    SmoothQuant's alpha. embedding_rows: tables of at least as many rows that are only looked up, as a large
    vocabulary's embedding is, become INT8 with a scale for each row; null leaves all in fp32.
    """

    weight_type: Literal["QInt8", "QUInt8"]
    per_channel: bool
    reduce_range: bool
    op_types: list[str] = Field(min_length=1)
    min_outputs: int = Field(default=1, ge=1)
    min_intensity: float = Field(default=0, ge=0)
    exclude_nodes: list[str] = Field(default_factory=list)
    smooth: float | None = Field(default=None, ge=0, le=1)
    embedding_rows: int | None = Field(default=None, ge=1)


class DynamicRecipe(_Int8Recipe):
    """INT8 weights, activations quantized at run time."""

    kind: Literal["dynamic"]


class StaticRecipe(_Int8Recipe):
    """INT8 weights and activations in QuantizeLinear and DequantizeLinear pairs, scales fixed by calibration.

    calibration: the range of a tensor is all that it was (`minmax`), all but the outliers beyond `percentile`, or
    what loses least information (`entropy`), over `calibration_feeds` inputs of each graph. symmetric: activations
    have no zero point, which TensorRT demands.
    """

    kind: Literal["static"]
    activation_type: Literal["QInt8", "QUInt8"]
    symmetric: bool
    calibration: Literal["minmax", "percentile", "entropy"]
    percentile: float = Field(default=99.99, gt=50, le=100)


class Float16Recipe(_CalibratedRecipe):
    """fp16 weights and arithmetic between fp32 inputs and outputs, without what counts or exceeds fp16's range."""

    kind: Literal["float16"]


class BFloat16Recipe(_Recipe):
    """bf16 weights and arithmetic between fp32 inputs and outputs, without what counts.

    For TensorRT: ONNX Runtime has none on a CPU.
    """

    kind: Literal["bfloat16"]


Recipe = Annotated[DynamicRecipe | StaticRecipe | Float16Recipe | BFloat16Recipe, Field(discriminator="kind")]


class QuantizeParams(Section):
    """The recipes that targets name."""

    recipes: dict[Key, Recipe]
