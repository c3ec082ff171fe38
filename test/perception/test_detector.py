from __future__ import annotations

import numpy as np
import pytest

from safety_filter.perception.detector import Detector, DetectorError, _decode, _names, _suppress


def raw_tensor(boxes, classes, scores, n_classes=3, n=32):
    """Output of a model with one prototype, a disc left of the middle."""
    raw = np.zeros((4 + n_classes + 32, n), np.float32)
    for i, (box, c, s) in enumerate(zip(boxes, classes, scores, strict=True)):
        raw[:4, i] = box
        raw[4 + c, i] = s
        raw[4 + n_classes, i] = 1.0
    y, x = np.mgrid[:16, :16]
    protos = np.zeros((32, 16, 16), np.float32)
    protos[0] = np.where((x - 7.5) ** 2 + (y - 7.5) ** 2 < 25, 5.0, -5.0)
    return raw, protos


def test_boxes_scores_and_masks_are_decoded():
    raw, protos = raw_tensor([(32, 32, 40, 30)], [2], [0.9])
    (found,) = _decode(raw, protos, 3, 64, (64, 64), (64, 64), 0.5, 0.6)
    assert found.class_id == 2
    assert found.score == pytest.approx(0.9)
    np.testing.assert_allclose(found.box, [12, 17, 52, 47])
    y, _ = np.nonzero(found.mask)
    assert y.min() >= 17
    assert y.max() <= 46
    assert found.mask[32, 32]
    assert abs(found.mask[:, :].sum() - np.pi * 20**2) < 350


def test_a_box_without_area_loses_no_other():
    """It overlaps nothing, not even itself, so nothing is said of its classes."""
    raw, protos = raw_tensor([(32, 32, 0, 30), (32, 32, 40, 30)], [1, 2], [0.95, 0.9])
    found = _decode(raw, protos, 3, 64, (64, 64), (64, 64), 0.5, 0.6)
    assert [d.class_id for d in found if d.mask.any()] == [2]


def test_a_letterboxed_picture_gets_masks_at_its_own_size():
    raw, protos = raw_tensor([(32, 16, 64, 32)], [0], [0.9])
    (found,) = _decode(raw, protos, 3, 64, (120, 240), (32, 64), 0.5, 0.6)
    assert found.mask.shape == (120, 240)
    np.testing.assert_allclose(found.box, [0, 0, 240, 120])


def test_weak_duplicate_and_unreadable_boxes_are_dropped():
    raw, protos = raw_tensor([(32, 32, 40, 30), (33, 32, 40, 30), (32, 32, 40, 30)],
                             [1, 1, 1], [0.9, 0.8, 0.2])
    raw[0, 5] = np.nan
    assert len(_decode(raw, protos, 3, 64, (64, 64), (64, 64), 0.5, 0.6)) == 1


def test_a_detection_tells_what_else_it_may_be():
    """The best score of each class among the boxes on it, those too weak to be kept included."""
    raw, protos = raw_tensor([(32, 32, 40, 30), (33, 32, 40, 30), (34, 32, 40, 30),
                              (10, 10, 12, 12)], [1, 2, 2, 0], [0.9, 0.3, 0.2, 0.4])
    (found,) = _decode(raw, protos, 3, 64, (64, 64), (64, 64), 0.5, 0.6)
    assert found.class_id == 1
    np.testing.assert_allclose(found.likeness, [0.0, 0.9, 0.3])


def test_suppression_keeps_the_best_of_each_place():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], np.float32)
    assert _suppress(boxes, 0.5) == [0, 2]
    assert _suppress(boxes, 0.95) == [0, 1, 2]


def test_names_come_from_a_literal_and_nothing_else():
    assert _names("{0: 'cube', 1: 'can'}") == ["cube", "can"]
    assert _names("__import__('os').system('true')") == []
    assert _names(None) == []


def test_missing_corrupt_or_other_weights_say_what_to_do(tmp_path):
    with pytest.raises(DetectorError, match=r"no detector weights here.*safety-filter train yolo"):
        Detector.load(tmp_path / "gone.onnx")
    wrong = tmp_path / "a.pt"
    wrong.write_bytes(b"x")
    with pytest.raises(DetectorError, match=r"expected an \.onnx file"):
        Detector.load(wrong)
    corrupt = tmp_path / "b.onnx"
    corrupt.write_bytes(b"not a model at all")
    with pytest.raises(DetectorError, match="not a readable ONNX model"):
        Detector.load(corrupt)
    other = tmp_path / "c.onnx"
    other.write_bytes(_identity_model())
    with pytest.raises(DetectorError, match="expected a YOLO segmentation model"):
        Detector.load(other)


def test_truncated_weights_are_rejected(tmp_path):
    from safety_filter.perception.detector import DEFAULT_WEIGHTS
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(DEFAULT_WEIGHTS.read_bytes()[:1_000_000])
    with pytest.raises(DetectorError, match="not a readable ONNX model"):
        Detector.load(torn)


@pytest.mark.parametrize("picture", [
    np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32),
    np.zeros((0, 64, 3), np.uint8), np.zeros((64, 64, 4), np.uint8)])
def test_pictures_of_another_kind_are_rejected(picture):
    with pytest.raises(ValueError, match="rgb: expected uint8"):
        Detector.load().detect(picture)


@pytest.mark.parametrize("shape", [(256, 256), (480, 640), (100, 37)])
def test_any_size_of_picture_is_taken(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for found in Detector.load().detect(noise, 0.05):
        assert found.mask.shape == shape
        assert 0.05 < found.score <= 1.0


def _identity_model() -> bytes:
    import onnx
    from onnx import TensorProto, helper
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [1, 3])], [value("y", TensorProto.FLOAT, [1, 3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert onnx.checker.check_model(model) is None
    return model.SerializeToString()
