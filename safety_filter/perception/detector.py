"""The detector: an exported YOLO segmentation model in onnxruntime, decoded with numpy.

ONNX holds a graph and numbers only, so weights from elsewhere cannot run code when loaded. Torch
and ultralytics are needed to train, not to detect.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
DEFAULT_WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "yolo11n_seg.onnx"
_N_COEFFICIENTS = 32
_FAINT = 0.02  # score below which a box says nothing of what it is on


class DetectorError(RuntimeError):
    """The weights cannot be used; the message says which file and what to do."""


@dataclass(frozen=True)
class Detection:
    """One object found: mask (H, W), box (x0, y0, x1, y1) px, class id, score 0..1.

    likeness: (classes,) best score of each class among all boxes that are on this one; None where
    a detector tells nothing of the classes that it did not choose.
    """

    mask: Mask
    box: F32
    class_id: int
    score: float
    likeness: F32 | None = None


class Detector:
    """A YOLO segmentation model. `names` are its classes in the order of their ids."""

    def __init__(self, weights: Path, threads: int = 1) -> None:
        import onnxruntime as ort  # type: ignore[import-untyped]
        if not weights.is_file():
            raise DetectorError(f"{weights}: no detector weights here; train them with "
                                "`safety-filter train yolo` or name another file")
        if weights.suffix != ".onnx":
            raise DetectorError(f"{weights}: expected an .onnx file; export a checkpoint with "
                                "`yolo export format=onnx imgsz=256`")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(weights), options,
                                                 providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own for every cause
            raise DetectorError(f"{weights}: not a readable ONNX model ({error}); fetch it again "
                                "or train it with `safety-filter train yolo`") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(outputs) != 2 or len(shape) != 4 or shape[2] != shape[3]:
            raise DetectorError(f"{weights}: expected a YOLO segmentation model with one square "
                                f"image in and two tensors out, got inputs {shape} and "
                                f"{len(outputs)} outputs")
        self.size = int(shape[2])
        self._input = inputs[0].name
        self.names = _names(self._session.get_modelmeta().custom_metadata_map.get("names"))
        channels = outputs[0].shape[1]
        if not self.names or channels != 4 + len(self.names) + _N_COEFFICIENTS:
            raise DetectorError(f"{weights}: expected 4 + {len(self.names)} classes + "
                                f"{_N_COEFFICIENTS} mask coefficients a box, got {channels}")

    @classmethod
    def load(cls, weights: str | Path = DEFAULT_WEIGHTS, threads: int = 1) -> Detector:
        """Open exported weights.

        Raises:
            DetectorError: the file is missing, corrupt, or another kind of model.
        """
        return cls(Path(weights), threads)

    def detect(self, rgb: NDArray[np.uint8], score_min: float = 0.35,
               iou_max: float = 0.6) -> list[Detection]:
        """Return the objects in a picture (H, W, 3), best first; any size is letterboxed.

        Raises:
            ValueError: not a uint8 colour picture.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
            raise ValueError(f"rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
        height, width = rgb.shape[:2]
        scale = self.size / max(height, width)
        new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
        image = rgb
        if (new_h, new_w) != (height, width):
            image = np.asarray(cv2.resize(rgb, (new_w, new_h), interpolation=cv2.INTER_LINEAR),
                               np.uint8)
        blob = np.full((1, 3, self.size, self.size), 114 / 255, np.float32)
        np.multiply(image.transpose(2, 0, 1), np.float32(1 / 255), out=blob[0, :, :new_h, :new_w])
        boxes, protos = self._session.run(None, {self._input: blob})
        return _decode(np.asarray(boxes)[0], np.asarray(protos)[0], len(self.names), self.size,
                       (height, width), (new_h, new_w), score_min, iou_max)


def _names(text: str | None) -> list[str]:
    """Class names from the metadata, a Python literal such as "{0: 'cube'}"."""
    try:
        value = ast.literal_eval(text or "{}")
        return [str(value[i]) for i in range(len(value))]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return []


def _decode(raw: F32, protos: F32, n_classes: int, size: int, shape: tuple[int, int],
            inner: tuple[int, int], score_min: float, iou_max: float) -> list[Detection]:
    """Detections from boxes (4 + classes + coefficients, n) and prototypes (32, h, w)."""
    scores = raw[4:4 + n_classes]
    best = scores.max(axis=0)
    keep = np.flatnonzero(best > score_min)
    keep = keep[np.isfinite(raw[:, keep]).all(axis=0)]
    if not keep.size:
        return []
    keep = keep[np.argsort(-best[keep], kind="stable")][:300]
    centre, extent = raw[0:2, keep].T, raw[2:4, keep].T
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)
    kept = _suppress(boxes, iou_max)
    likeness = _likeness(raw[:4], scores, boxes[kept], iou_max)
    scale = np.array([shape[1] / inner[1], shape[0] / inner[0]] * 2, np.float32)
    limit = np.array([shape[1], shape[0]] * 2, np.float32)
    grid_x, grid_y = _prototype_grid(shape, (float(scale[0]), float(scale[1])),
                                     size / protos.shape[1])
    out = []
    flat = protos.reshape(protos.shape[0], -1)
    coefficients = raw[4 + n_classes:, keep].T
    for n, i in enumerate(kept):
        logits = (coefficients[i] @ flat).reshape(protos.shape[1:])
        box = np.clip(boxes[i] * scale, 0, limit)
        x0, y0 = int(box[0]), int(box[1])
        x1, y1 = int(np.ceil(box[2])), int(np.ceil(box[3]))
        if x1 <= x0 or y1 <= y0:
            continue
        # Sampled only inside the box.
        inside = cv2.remap(logits, grid_x[y0:y1, x0:x1], grid_y[y0:y1, x0:x1], cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE) > 0
        if not inside.any():
            continue
        mask = np.zeros(shape, np.bool_)
        mask[y0:y1, x0:x1] = inside
        column = int(keep[i])
        class_id = int(np.argmax(scores[:, column]))
        out.append(Detection(mask, box.astype(np.float32), class_id, float(best[column]),
                             likeness[n]))
    return out


@lru_cache(maxsize=4)
def _prototype_grid(shape: tuple[int, int], scale: tuple[float, float],
                    stride: float) -> tuple[F32, F32]:
    """Coordinates x and y (H, W) among the prototypes of the pixels of a picture."""
    xs = (np.arange(shape[1], dtype=np.float32) + 0.5) / np.float32(scale[0]) / stride - 0.5
    ys = (np.arange(shape[0], dtype=np.float32) + 0.5) / np.float32(scale[1]) / stride - 0.5
    return (np.ascontiguousarray(np.broadcast_to(xs, shape), np.float32),
            np.ascontiguousarray(np.broadcast_to(ys[:, None], shape), np.float32))


def _likeness(raw: F32, scores: F32, kept: F32, iou_min: float) -> F32:
    """Best score of each class among all boxes that are on one of the `kept` (m, 4): (m, classes).

    raw: centres and extents (4, n) of all boxes, scores (classes, n). One box names one class and
    is sure of it; that another hardly worse one names another says that it may be that.
    """
    some = np.flatnonzero(scores.max(axis=0) > _FAINT)
    some = some[np.isfinite(raw[:, some]).all(axis=0)]
    low, high = (raw[:2] - raw[2:] / 2)[:, some].T, (raw[:2] + raw[2:] / 2)[:, some].T
    area = np.prod(raw[2:, some], axis=0)
    out = np.zeros((len(kept), len(scores)), np.float32)
    for n, box in enumerate(kept):
        overlap = np.prod(np.maximum(np.minimum(high, box[2:]) - np.maximum(low, box[:2]), 0), 1)
        on = overlap > iou_min * (area + np.prod(box[2:] - box[:2]) - overlap)
        out[n] = scores[:, some[on]].max(axis=1, initial=0.0)
    return out


def _suppress(boxes: F32, iou_max: float) -> list[int]:
    """Indices kept by non-maximum suppression of boxes (n, 4) in descending order of score."""
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        low = np.maximum(boxes[i, :2], boxes[:, :2])
        high = np.minimum(boxes[i, 2:], boxes[:, 2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        alive &= ~(overlap > iou_max * (area[i] + area - overlap))
    return kept
