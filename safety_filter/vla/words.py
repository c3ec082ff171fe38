"""The tokenizer: one id per word, so that a word never seen is known to be unknown."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safety_filter.sim.catalogue import (
    COLOURS,
    PARAPHRASE_TEMPLATES,
    PREPOSITION,
    SHAPES,
    TRAIN_TEMPLATES,
)

PAD, UNKNOWN = "[PAD]", "[UNK]"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer over every word of the catalogue and of the templates."""
    words = {w for t in (*TRAIN_TEMPLATES, *PARAPHRASE_TEMPLATES) for w in t.split()
             if not w.startswith("{")}
    words |= set(COLOURS) | set(SHAPES) | set(PREPOSITION.values())
    vocabulary = {w: i for i, w in enumerate([PAD, UNKNOWN, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)
