from __future__ import annotations

import math

import pytest

from safety_filter.core.params import ParamError
from safety_filter.perception.params import TABLE


def test_defaults_are_valid_and_documented():
    TABLE.validate({})
    for row in TABLE.rows:
        assert row.text
        assert row.unit


@pytest.mark.parametrize(("change", "text"), [
    ({"workspace_min": (0.5, 2.0, 0.0)}, "expected min < max along y, got 2.0 and 0.9"),
    ({"workspace_min": (0.5, 0.0)}, "expected 3 numbers each, got 2 and 3"),
    ({"depth_min": 4.0}, "depth_min/max: expected min < max, got 4.0 and 3.0"),
    ({"drop_visible": 6.0}, "drop_visible: expected <= drop_hidden 4.0, got 6.0"),
    ({"open_classes": ("cup",)}, "open_classes: .*cup.* not among support_classes"),
    ({"target_gap": math.nan}, "target_gap: expected a finite number"),
    ({"attention_age": 0.0}, "attention_age: expected 0.05 to 5 s, got 0.0"),
])
def test_inconsistent_values_are_rejected_with_both_values(change, text):
    with pytest.raises(ParamError, match=text):
        TABLE.validate(change)
