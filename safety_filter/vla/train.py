"""Behaviour cloning of the shipped policy: collect, fit, then rounds of DAgger.

Every stage leaves its result on disk and is skipped when that is there; a fit that was
interrupted goes on from its last checkpoint. Seeds are stated in `TrainPlan`.

The first fit learns to read the words. That comes late and all at once, so nothing may distract
from it (`WORDS`): with the keypoint token and with its pictures and losses weighted towards
look-alikes and grasps (`DETAIL`) the policy had not read one word after 16,000 steps. It has
twice the steps of a later fit, for what it learns of the words after they have come.

DAgger: Ross, Gordon, Bagnell 2011, arXiv 1011.0686.
"""

from __future__ import annotations

import copy
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safety_filter.sim.expert import chunk
from safety_filter.vla.closed_loop import PolicyDriver
from safety_filter.vla.dataset import (
    alike,
    collect,
    draw_task,
    graspable_objects,
    task_state,
)
from safety_filter.vla.modeling import VlaConfig, VlaModel, load_model
from safety_filter.vla.words import build_tokenizer

INSTRUCTIONS_PER_PICTURE = 4
NEAR = 0.07  # m from the goal, where millimetres decide


@dataclass(frozen=True)
class Emphasis:
    """What a fit attends to: the weights of what is near the goal and of objects that share a
    colour with another, and whether the policy may use its keypoints."""

    near_weight: float
    alike_weight: float
    keypoints: bool


WORDS = Emphasis(1.0, 1.0, False)
DETAIL = Emphasis(3.0, 3.0, True)


@dataclass(frozen=True)
class TrainPlan:
    """What a training run does. Scenes of training have seeds from `seed0` upwards; seeds below
    `seed0` are never trained on."""

    seed: int = 0
    seed0: int = 1_000_000
    shards: int = 18
    episodes_per_shard: int = 60
    dagger_rounds: int = 3
    dagger_shards: int = 5
    steps: int = 20_000
    dagger_steps: int = 10_000
    pictures: int = 8
    lr: float = 1.5e-3
    dagger_lr: float = 1e-3
    auxiliary: bool = True
    threads: int = 1

    def scene_seeds(self, stage: int, shard: int) -> range:
        """Seeds of a shard; stage 0 is the expert's, stage n the n-th round of DAgger."""
        start = self.seed0 * (stage + 1) + shard * self.episodes_per_shard
        return range(start, start + self.episodes_per_shard)


class Pictures:
    """All shards below some folders, as batches of pictures with several tasks each."""

    def __init__(self, folders: list[Path], config: VlaConfig,
                 emphasis: Emphasis = DETAIL) -> None:
        self.config, self._emphasis = config, emphasis
        self._folders = folders
        self._tokenizer = build_tokenizer()
        self._shards: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Pick up shards written since."""
        for folder in self._folders:
            for rows in sorted(folder.glob("shard_*/rows.npy")):
                if rows.parent not in self._shards:
                    row = np.load(rows)
                    weights = np.array([
                        self._emphasis.alike_weight
                        if any(alike(r, i) for i in graspable_objects(r)) else 1.0 for r in row])
                    self._shards[rows.parent] = (
                        row, np.load(rows.parent / "scene.npy", mmap_mode="r"),
                        np.load(rows.parent / "wrist.npy", mmap_mode="r"), np.cumsum(weights))
        if not self._shards:
            raise FileNotFoundError(f"no training data below {[str(f) for f in self._folders]}; "
                                    "run `safety-filter train vla` to collect it")
        self._keys = list(self._shards)
        self.count = sum(len(self._shards[k][0]) for k in self._keys)
        weights = np.array([self._shards[k][3][-1] for k in self._keys])
        self._weights = weights / weights.sum()

    def batch(self, pictures: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Inputs of the model and its labels for `pictures` random pictures."""
        scenes, wrists, rows = [], [], []
        for s in rng.choice(len(self._keys), pictures, p=self._weights):
            row, scene, wrist, weights = self._shards[self._keys[s]]
            i = int(np.searchsorted(weights, rng.uniform(0, weights[-1])))
            rows.append(row[i])
            scenes.append(scene[i])
            wrists.append(wrist[i])
        return {"scene": _augment(np.stack(scenes), rng), "wrist": _augment(np.stack(wrists), rng),
                **self._labels(rows, rng)}

    def _labels(self, rows: list[np.void], rng: np.random.Generator) -> dict[str, Tensor]:
        proprio, texts, twists, openings = [], [], [], []
        goals, present, weights = [], [], []
        for row in rows:
            for _ in range(INSTRUCTIONS_PER_PICTURE):
                task = draw_task(row, rng, self._emphasis.alike_weight)
                state = task_state(row, task.target, task.destination)
                twist, opening = chunk(state, self.config.chunk)
                proprio.append(row["proprio"])
                texts.append(task.instruction)
                twists.append(twist)
                openings.append(opening)
                goals.append(state.destination if state.held else state.target)
                present.append(task.present)
                aim = state.drop_point() if state.held else state.target
                near = np.linalg.norm(aim - state.tool) < NEAR
                weights.append(self._emphasis.near_weight if near else 1.0)
        words = self._tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
        scale = np.array([self.config.linear_scale] * 3 + [self.config.angular_scale] * 3)

        def as_tensor(values: object) -> Tensor:
            return torch.from_numpy(np.asarray(values, np.float32))

        noisy = np.asarray(proprio, np.float32)
        noisy = noisy + rng.normal(0, 1, noisy.shape) * ([0.002] * 3 + [0.004] * 9 + [0.001])
        return {"proprio": as_tensor(noisy), "words": words,
                "twists": as_tensor(np.asarray(twists) / scale),
                "close": as_tensor(np.asarray(openings) < 0.04),
                "goals": as_tensor(goals), "present": as_tensor(present),
                "weight": as_tensor(weights)}


def _augment(pictures: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Pictures (N, S, S, 3) uint8 to (N, 3, S, S) in 0..1 under other light, colour, blur."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32)
    n = len(x)

    def draw(low: float, high: float, channels: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, channels, 1, 1)).astype(np.float32))

    gain = draw(0.85, 1.15, 1)
    offset = draw(-0.08, 0.08, 1) + draw(-0.03, 0.03, 3) + 0.5 - 0.5 * gain
    x = torch.addcmul(offset, x, gain / 255).clamp_(0, 1)
    if rng.random() < 0.5:
        x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), draw(0, 1, 1))
    return x


def loss(model: VlaModel, batch: dict[str, Tensor], emphasis: Emphasis = DETAIL
         ) -> tuple[Tensor, dict[str, float]]:
    """Training loss of a batch and its parts. Attention is not supervised."""
    out = model(batch["scene"], batch["wrist"], batch["proprio"], batch["words"],
                emphasis.keypoints)
    there = batch["present"]
    weight = there * batch["weight"]
    weight = weight / weight.sum().clamp(min=1)
    twist = F.smooth_l1_loss(out.twists, batch["twists"], beta=0.1, reduction="none").mean((1, 2))
    close = F.binary_cross_entropy_with_logits(
        out.close, batch["close"], reduction="none").mean(1)
    parts = {"twist": (twist * weight).sum(), "close": 0.3 * (close * weight).sum(),
             "present": 0.1 * F.binary_cross_entropy_with_logits(out.present, there)}
    if out.goal is not None:
        goal = F.smooth_l1_loss(out.goal / 0.1, batch["goals"] / 0.1, beta=0.1, reduction="none")
        parts["goal"] = 0.5 * (goal.mean(1) * weight).sum()
    total = torch.stack(list(parts.values())).sum()
    return total, {k: float(v.detach()) for k, v in parts.items()}


class Average:
    """Exponential moving average of a model's parameters; buffers are copied."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()),
                             1 - self._decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)


def fit(folders: list[Path], out: Path, plan: TrainPlan, steps: int, lr: float,
        start: Path | None, *, log_every: int = 200, checkpoint_every: int = 1000) -> Path:
    """Train for `steps` from `start` (or from scratch: then the words first) and save the
    averaged model to `out`."""
    if (out / "model.safetensors").exists():
        return out
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(plan.seed)
    config = VlaConfig(vocab_size=len(build_tokenizer()), auxiliary=plan.auxiliary)
    model = (VlaModel(config) if start is None else load_model(start)).to(device)
    average = Average(model)
    emphasis = WORDS if start is None else DETAIL
    data = Pictures(folders, config, emphasis)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02, betas=(0.9, 0.98),
                                  fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=steps, pct_start=min(0.05, 400 / steps), cycle_momentum=False)
    checkpoint, first = out / "checkpoint.pt", 0
    out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = int(state["step"])
    model.train()
    sums: dict[str, float] = {}
    clock = time.perf_counter()
    for step in range(first, steps):
        rng = np.random.default_rng([plan.seed, step, steps])
        batch = {k: v.to(device) for k, v in data.batch(plan.pictures, rng).items()}
        with torch.autocast(device.type, torch.bfloat16):
            total, parts = loss(model, batch, emphasis)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update(model)
        for key, value in parts.items():
            sums[key] = sums.get(key, 0.0) + value / log_every
        if (step + 1) % log_every == 0:
            spent = time.perf_counter() - clock
            text = "  ".join(f"{k} {v:.4f}" for k, v in sums.items())
            print(f"step {step + 1}/{steps}  {text}  {data.count} pictures  "
                  f"{spent / log_every * 1e3:.0f} ms/step", flush=True)
            sums, clock = {}, time.perf_counter()
            data.refresh()
        if (step + 1) % checkpoint_every == 0:
            part = checkpoint.with_suffix(".part")
            torch.save({"model": model.state_dict(), "average": average.model.state_dict(),
                        "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(),
                        "step": step + 1}, part)
            part.rename(checkpoint)
    save(average.model, out, plan)
    checkpoint.unlink(missing_ok=True)
    return out


def save(model: VlaModel, out: Path, plan: TrainPlan) -> None:
    """Write weights, configuration, tokenizer and the plan that made them."""
    model.save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    (out / "plan.json").write_text(json.dumps(asdict(plan), indent=1) + "\n")


def gather(folder: Path, plan: TrainPlan, stage: int, model: Path | None) -> None:
    """Write a stage's shards in `plan.threads` processes; the expert drives, or `model`."""
    shards = plan.shards if model is None else plan.dagger_shards
    with ProcessPoolExecutor(plan.threads) as pool:
        jobs = [pool.submit(_shard, folder, plan.scene_seeds(stage, i), model)
                for i in range(shards)]
        for i, job in enumerate(jobs):
            print(f"stage {stage} shard {i + 1}/{shards}: {job.result()} pictures", flush=True)


def _shard(folder: Path, seeds: range, model: Path | None) -> int:
    torch.set_num_threads(1)
    if model is None:
        return collect(folder, seeds)
    return collect(folder, seeds, PolicyDriver.load(model).act, noise=0.5, shove_rate=0.02)


def train(work: Path, plan: TrainPlan, start: Path | None = None) -> Path:
    """The whole recipe, or with `start` its DAgger rounds from those weights on; returns the
    folder of the last model."""
    torch.set_num_threads(plan.threads)
    folders = [work / "data"]
    gather(folders[0], plan, 0, None)
    model = start or fit(folders, work / "stage0", plan, plan.steps, plan.lr, None)
    for stage in range(1, plan.dagger_rounds + 1):
        folders.append(work / f"dagger{stage}")
        gather(folders[-1], plan, stage, model)
        model = fit(folders, work / f"stage{stage}", plan, plan.dagger_steps, plan.dagger_lr,
                    model)
    return model
