"""What tests of several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the shipped architecture with random weights: real files, no training."""
    import torch

    from safety_filter.vla.modeling import VlaConfig, VlaModel
    from safety_filter.vla.profile import HeadProfile, fingerprint
    from safety_filter.vla.words import build_tokenizer

    folder = tmp_path_factory.mktemp("vla")
    torch.manual_seed(0)
    VlaModel(VlaConfig()).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    HeadProfile(fingerprint(folder), (1, 0), (2, 1), wrist=(0, 2)).save(folder / "profile.yaml")
    return folder
