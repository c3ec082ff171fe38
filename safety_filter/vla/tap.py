"""The attention tap: reads chosen heads by forward hooks, without touching the computation."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safety_filter.vla.modeling import VlaModel

Head = tuple[int, int]


class AttentionTap:
    """Reads cross-attention of some heads from some query rows to one camera's tokens.

    The hooks sit on the softmax modules and copy their output; the model computes the same with
    and without them, bit by bit. Use as a context manager, or `attach` and `detach`.

    model: the policy's network. camera: "scene" or "wrist". heads: (layer, head) pairs, a map
    of each. rows: query rows, 0 is the action token; a map is their mean.

    Raises: ValueError for a layer or head that the model does not have.
    """

    def __init__(self, model: VlaModel, heads: Sequence[Head], camera: str = "scene",
                 rows: Sequence[int] = (0,)) -> None:
        config = model.config
        for layer, head in heads:
            if not (0 <= layer < config.layers and 0 <= head < config.heads):
                raise ValueError(
                    f"head: expected a layer below {config.layers} and a head below "
                    f"{config.heads}, got layer {layer}, head {head}")
        self._modules: dict[int, nn.Module] = {
            layer: model.decoder[layer].cross[camera].weights for layer, _ in heads}
        self.heads = [tuple(h) for h in heads]
        self._rows = list(rows)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._seen: dict[int, Tensor] = {}

    def attach(self) -> None:
        """Start reading."""
        if self._handles:
            return
        self._seen.clear()
        for layer, module in self._modules.items():
            def read(_module: nn.Module, _inputs: object, output: Tensor,
                     layer: int = layer) -> None:
                self._seen[layer] = output[:, :, self._rows].detach()

            self._handles.append(module.register_forward_hook(read))

    def detach(self) -> None:
        """Stop reading; the model is as if the tap had never been there."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> AttentionTap:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.detach()

    def maps(self) -> NDArray[np.float32]:
        """Maps of the last forward pass, one per head: (batch, heads, g, g), each of sum 1.

        Raises: RuntimeError if the model has not run since `attach`.
        """
        if not self._seen:
            raise RuntimeError("attention tap: the model has not run since the tap was attached")
        picked = [self._seen[layer][:, head].mean(1) for layer, head in self.heads]
        weights = torch.stack(picked, 1).float()
        grid = round(weights.shape[-1] ** 0.5)
        return weights.reshape(*weights.shape[:2], grid, grid).cpu().numpy()
