"""A small vision-language-action model: words, two pictures and proprioception to a chunk.

One action query attends to the words and the proprioception (self-attention) and, layer by layer,
to the tokens of the scene picture and of the wrist picture (cross-attention). Queries and keys are
normalised (QK-norm, Henry et al. 2020, arXiv 2010.04245), image positions are Fourier features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

CAMERAS = ("scene", "wrist")


class VlaConfig(PretrainedConfig):
    """Sizes of the model and scales of its actions. Lengths in m, times in s."""

    model_type = "safety_filter_vla"

    def __init__(
        self,
        vocab_size: int = 64,
        max_words: int = 20,
        d_model: int = 128,
        heads: int = 4,
        layers: int = 3,
        qk_gain: float = 1.5,
        scene_size: int = 128,
        wrist_size: int = 64,
        chunk: int = 8,
        dt: float = 0.05,
        linear_scale: float = 0.15,
        angular_scale: float = 0.3,
        auxiliary: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_words = max_words
        self.d_model = d_model
        self.heads = heads
        self.layers = layers
        self.qk_gain = qk_gain
        self.scene_size = scene_size
        self.wrist_size = wrist_size
        self.chunk = chunk
        self.dt = dt
        self.linear_scale = linear_scale
        self.angular_scale = angular_scale
        self.auxiliary = auxiliary
        super().__init__(**kwargs)

    @property
    def grids(self) -> tuple[int, int]:
        """Tokens along a side of the scene picture, and of the wrist picture."""
        return int(self.scene_size) // 8, int(self.wrist_size) // 8


@dataclass
class VlaOutput(ModelOutput):
    """twists (B, H, 6) in units of the scales; close (B, H) logits; present (B,) logit that the
    named object is in view; goal (B, 3) position of the current goal in base, m, or None."""

    twists: Tensor | None = None
    close: Tensor | None = None
    present: Tensor | None = None
    goal: Tensor | None = None


MIDDLE = 48


class Stem(nn.Module):
    """Picture (B, 3, S, S) to tokens (B, (S/8)^2, d) and a finer map (B, MIDDLE, S/4, S/4),
    batch-normalised throughout."""

    def __init__(self, d: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU())

        self.down = nn.Sequential(block(3, 24, 2), block(24, MIDDLE, 2), block(MIDDLE, d, 2))
        self.mix = block(d, d, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        picture = picture.contiguous(memory_format=torch.channels_last)
        middle = self.down[1](self.down[0](picture))
        x = self.down[2](middle)
        return (x + self.mix(x)).flatten(2).transpose(1, 2), middle


class Keypoints(nn.Module):
    """A map (B, MIDDLE, s, s) to one token (B, 1, d): the mean positions of `points` learned
    heat maps (spatial softmax, Finn et al. 2016, arXiv 1509.06113). Finer than the tokens."""

    def __init__(self, d: int, points: int = 32) -> None:
        super().__init__()
        self.heat = nn.Conv2d(MIDDLE, points, 1)
        self.out = nn.Sequential(nn.Linear(2 * points, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, middle: Tensor) -> Tensor:
        weights = self.heat(middle).float().flatten(2).softmax(-1).unflatten(2, middle.shape[2:])
        axis = torch.linspace(-1, 1, middle.shape[-1], device=middle.device)
        x, y = (weights.sum(2) * axis).sum(-1), (weights.sum(3) * axis).sum(-1)
        return self.out(torch.cat([x, y], 1))[:, None]


class Positions(nn.Module):
    """Learned projection of 2-D Fourier features of the patch centres, (g*g, d)."""

    features: Tensor

    def __init__(self, grid: int, d: int, bands: int = 6) -> None:
        super().__init__()
        centres = (torch.arange(grid) + 0.5) / grid * 2 - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        scale = torch.pi * 2.0 ** (torch.arange(bands) / 2)
        angles = torch.stack([x, y], -1).reshape(-1, 2, 1) * scale
        raw = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
        self.register_buffer("features", raw)
        self.project = nn.Linear(raw.shape[1], d)

    def forward(self) -> Tensor:
        return self.project(self.features)


class Attention(nn.Module):
    """Multi-head attention with QK-norm.

    `weights` is a module of its own so that a forward hook can read the attention (B, heads,
    queries, keys) without any change of the computation.
    """

    def __init__(self, d: int, heads: int, gain: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(d, d), nn.Linear(d, d)
        self.key, self.value = nn.Linear(d, d), nn.Linear(d, d)
        self.q_norm = nn.LayerNorm(d // heads, elementwise_affine=False)
        self.k_norm = nn.LayerNorm(d // heads, elementwise_affine=False)
        self.gain = nn.Parameter(torch.full((heads, 1, 1), gain / (d // heads) ** 0.5))
        self.weights = nn.Softmax(dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, Q, d); context (N, K, d), B a multiple of N; mask (N, K), True for keys that
        count."""
        # Instructions that share a picture are grouped along the queries: no copies of its keys.
        q = self.q_norm(self._split(self.query(x).reshape(len(context), -1, x.shape[-1])))
        k = self.k_norm(self._split(self.key(context)))
        v = self._split(self.value(context))
        logits = (q * self.gain) @ k.transpose(-1, -2)
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, :], -1e4)
        return self.out((self.weights(logits) @ v).transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    """Self-attention, one cross-attention per camera, MLP; pre-norm residuals."""

    def __init__(self, config: VlaConfig) -> None:
        super().__init__()
        d = config.d_model
        self.self_attention = Attention(d, config.heads, config.qk_gain)
        self.cross = nn.ModuleDict(
            {c: Attention(d, config.heads, config.qk_gain) for c in CAMERAS})
        self.norms = nn.ModuleList([nn.LayerNorm(d) for _ in range(4)])
        self.mlp = nn.Sequential(nn.Linear(d, 3 * d), nn.GELU(), nn.Linear(3 * d, d))

    def forward(self, x: Tensor, mask: Tensor, images: dict[str, Tensor]) -> Tensor:
        y = self.norms[0](x)
        x = x + self.self_attention(y, y, mask)
        for norm, camera in zip(list(self.norms)[1:3], CAMERAS, strict=True):
            x = x + self.cross[camera](norm(x), images[camera])
        return x + self.mlp(self.norms[3](x))


class VlaModel(PreTrainedModel):
    """The policy. Query row 0 is the action token, the one whose attention is read."""

    config_class = VlaConfig
    base_model_prefix = "vla"
    main_input_name = "scene"

    def __init__(self, config: VlaConfig) -> None:
        super().__init__(config)
        d = config.d_model
        self.stems = nn.ModuleDict({c: Stem(d) for c in CAMERAS})
        self.keypoints = Keypoints(d)
        self.positions = nn.ModuleDict({
            c: Positions(grid, d) for c, grid in zip(CAMERAS, config.grids, strict=True)})
        self.image_norm = nn.ModuleDict({c: nn.LayerNorm(d) for c in CAMERAS})
        self.words = nn.Embedding(config.vocab_size, d, padding_idx=0)
        self.word_positions = nn.Embedding(config.max_words, d)
        self.proprio = nn.Sequential(nn.Linear(13, d), nn.GELU(), nn.Linear(d, d))
        self.action_token = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.decoder = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(d)
        self.action_head = nn.Sequential(
            nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, config.chunk * 7))
        self.present_head = nn.Linear(d, 1)
        self.goal_head = nn.Linear(d, 3) if config.auxiliary else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)

    def forward(self, scene: Tensor, wrist: Tensor, proprio: Tensor, words: Tensor,
                with_keypoints: bool = True) -> VlaOutput:
        """scene (N, 3, S, S) and wrist (N, 3, W, W) in 0..1; proprio (B, 13): tool position in
        base (3, m), rotation matrix (9, row by row), opening (m); words (B, L) token ids, 0 is
        padding. B is a multiple of N: that many instructions look at the same picture. Nothing
        attends to the keypoint token if not `with_keypoints`."""
        repeat = len(words) // len(scene)
        images, middle = {}, scene
        for camera, picture in (("scene", scene), ("wrist", wrist)):
            tokens, middle = self.stems[camera]((picture - 0.5) / 0.25)
            images[camera] = self.image_norm[camera](tokens) + self.positions[camera]()
        points = self.keypoints(middle).repeat_interleave(repeat, 0)  # of the wrist picture
        length = words.shape[1]
        text = self.words(words) + self.word_positions.weight[:length]
        state = self.proprio(_proprio_features(proprio))[:, None]
        x = torch.cat([self.action_token.expand(len(words), -1, -1), state, points, text], 1)
        mask = torch.cat([torch.ones_like(words[:, :3], dtype=torch.bool), words != 0], 1)
        mask[:, 2] = with_keypoints
        for layer in self.decoder:
            x = layer(x, mask, images)
        token = self.norm(x[:, 0])
        actions = self.action_head(token).unflatten(-1, (self.config.chunk, 7))
        return VlaOutput(
            twists=actions[..., :6], close=actions[..., 6],
            present=self.present_head(token)[:, 0],
            goal=None if self.goal_head is None else self.goal_head(token) + _centre(token))


def load_model(folder: Path) -> VlaModel:
    """The model in `folder`, complete or not at all.

    Raises: ValueError if weights are missing, unknown or of another size (`from_pretrained` by
    itself fills such gaps with arbitrary numbers); OSError, SafetensorError for damaged files.
    """
    model, info = VlaModel.from_pretrained(folder, output_loading_info=True)
    faults = {k: sorted(map(str, v)) for k, v in info.items() if v}
    if faults:
        raise ValueError(f"weights in {folder} do not fit the model: {faults}")
    return model


def _centre(like: Tensor) -> Tensor:
    return like.new_tensor([0.5, 0.0, 0.1])


def _proprio_features(proprio: Tensor) -> Tensor:
    """Proprioception scaled to about unit range; the rotation as its difference from down."""
    down = proprio.new_tensor([1.0, 0, 0, 0, -1.0, 0, 0, 0, -1.0])
    return torch.cat([
        (proprio[:, :3] - _centre(proprio)) / 0.12, (proprio[:, 3:12] - down) / 0.2,
        (proprio[:, 12:] - 0.05) / 0.03], 1)
