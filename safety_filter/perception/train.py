"""Training of the detector: `safety-filter train yolo`.

An ultralytics YOLO segmentation model of the smallest size, from scratch, on pictures rendered and
labelled by the simulator. One CPU thread; a checkpoint each epoch; a run that was stopped goes on
where it was. The result is an ONNX file (no pickle) with a card.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from safety_filter.perception import dataset
from safety_filter.sim.catalogue import CLASS_NAMES

ARCHITECTURE = "yolo11n-seg.yaml"
IMAGE_SIZE = 256
TRAIN_SCENES, VAL_SCENES, TEST_SCENES = 3000, 100, 150
EPOCHS, BATCH, SEED = 4, 16, 0
HYPERPARAMETERS: dict[str, Any] = {
    "optimizer": "AdamW", "lr0": 2e-3, "lrf": 0.02, "cos_lr": True, "warmup_epochs": 0.4,
    "nbs": BATCH, "weight_decay": 5e-4, "mosaic": 0.0, "close_mosaic": 0, "mixup": 0.0,
    "copy_paste": 0.0, "erasing": 0.0, "degrees": 0.0, "translate": 0.05, "scale": 0.1,
    "shear": 0.0, "perspective": 0.0, "fliplr": 0.5, "flipud": 0.0,
    "hsv_h": 0.015, "hsv_s": 0.4, "hsv_v": 0.3,
}


def _ultralytics() -> Any:
    """Import ultralytics for one quiet CPU thread without network access."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    import torch
    import ultralytics
    torch.set_num_threads(1)
    return ultralytics


def _bfloat16() -> bool:
    """Run the forward and backward passes of training in bfloat16 where the CPU multiplies so.

    Halves the time on CPUs with AMX; losses, weights and the optimiser stay float32. Returns
    whether it is used.
    """
    import torch
    from ultralytics.nn import tasks
    model_class: Any = tasks.BaseModel
    if not torch.cpu._is_amx_tile_supported():
        return False
    plain = model_class.predict

    def widen(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.float() if value.dtype == torch.bfloat16 else value
        if isinstance(value, dict):
            return {k: widen(v) for k, v in value.items()}
        return type(value)(widen(v) for v in value) if isinstance(value, (list, tuple)) else value

    def predict(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return plain(self, x, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            return widen(plain(self, x.to(memory_format=torch.channels_last), *args, **kwargs))

    model_class.predict = predict
    return True


def write_yaml(folder: Path, test: str = "test") -> Path:
    """Write the description of the data set that ultralytics reads; returns its path."""
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(CLASS_NAMES))
    path = folder / "data.yaml"
    path.write_text(f"path: {folder.resolve()}\ntrain: train/images\nval: val/images\n"
                    f"test: {test}/images\nnames:\n{names}\n")
    return path


def train(work: Path, epochs: int = EPOCHS, train_scenes: int = TRAIN_SCENES) -> Path:
    """Render the data, train, and return the checkpoint; everything is kept below `work`.

    A second call with the same folder goes on from the last epoch.
    """
    ultralytics = _ultralytics()
    data = work / "data"
    dataset.write(data / "val", dataset.VAL_SEED, VAL_SCENES)
    dataset.write(data / "train", dataset.TRAIN_SEED, train_scenes)
    description = write_yaml(data)
    last = work / "run" / "weights" / "last.pt"
    finished = work / "finished"
    if finished.exists():
        return last
    _bfloat16()
    if last.exists():
        ultralytics.YOLO(str(last)).train(resume=True)
    else:
        ultralytics.YOLO(ARCHITECTURE, task="segment").train(
            data=str(description), imgsz=IMAGE_SIZE, epochs=epochs, batch=BATCH, seed=SEED,
            device="cpu", workers=0, amp=False, plots=False, pretrained=False, val=False,
            project=str(work.resolve()), name="run", exist_ok=True, deterministic=True,
            **HYPERPARAMETERS)
    finished.touch()
    return last


def evaluate(weights: Path, work: Path, scenes: int = TEST_SCENES,
             crowd: bool = False) -> dict[str, Any]:
    """Return mAP of a checkpoint or an ONNX file on held-out scenes, with counts.

    The scenes are those of the simulator, or as crowded as those of the training.
    """
    ultralytics = _ultralytics()
    data = work / "data"
    split, seed = ("crowded", dataset.CROWDED_SEED) if crowd else ("test", dataset.TEST_SEED)
    pictures = dataset.write(data / split, seed, scenes, crowd)
    metrics = ultralytics.YOLO(str(weights), task="segment").val(
        data=str(write_yaml(data, split)), split="test", imgsz=IMAGE_SIZE, batch=1, device="cpu",
        workers=0, plots=False, verbose=False, project=str(work.resolve()), name="val",
        exist_ok=True)
    names = list(CLASS_NAMES)
    per_class = {names[c]: round(float(metrics.seg.ap50[i]), 4)
                 for i, c in enumerate(metrics.seg.ap_class_index)}
    return {
        "pictures": pictures, "scenes": scenes, "first_seed": seed,
        "objects": int(sum(metrics.nt_per_class)),
        "box_map50": round(float(metrics.box.map50), 4),
        "box_map50_95": round(float(metrics.box.map), 4),
        "mask_map50": round(float(metrics.seg.map50), 4),
        "mask_map50_95": round(float(metrics.seg.map), 4),
        "mask_ap50_per_class": per_class,
    }


def export(checkpoint: Path, target: Path) -> Path:
    """Write a checkpoint as ONNX (fixed size, batch 1) to `target`."""
    ultralytics = _ultralytics()
    made = ultralytics.YOLO(str(checkpoint)).export(
        format="onnx", imgsz=IMAGE_SIZE, simplify=False, dynamic=False, device="cpu")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, target)
    return target


def card(weights: Path, scores: dict[str, Any], crowded: dict[str, Any], epochs: int,
         minutes: float | None, train_scenes: int = TRAIN_SCENES) -> dict[str, Any]:
    """Return the card that ships beside the weights."""
    ultralytics = _ultralytics()
    frames = dataset.FRAMES_PER_SCENE
    return {
        "schema": 1, "file": weights.name, "bytes": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "architecture": ARCHITECTURE, "from_scratch": True, "image_size": IMAGE_SIZE,
        "classes": list(CLASS_NAMES),
        "command": f"safety-filter train yolo --epochs {epochs} --scenes {train_scenes}",
        "ultralytics": ultralytics.__version__, "license": "AGPL-3.0 (ultralytics)",
        "seed": SEED, "epochs": epochs, "train_minutes_one_cpu_thread": minutes,
        "hyperparameters": HYPERPARAMETERS,
        "data": {
            "source": "pictures rendered and labelled by safety_filter.sim",
            "train": {"first_seed": dataset.TRAIN_SEED, "scenes": train_scenes,
                      "pictures": train_scenes * frames},
            "val": {"first_seed": dataset.VAL_SEED, "scenes": VAL_SCENES,
                    "pictures": VAL_SCENES * frames}},
        "held_out": scores, "held_out_crowded": crowded,
    }


def run(work: Path, target: Path, epochs: int = EPOCHS, train_scenes: int = TRAIN_SCENES,
        ) -> dict[str, Any]:
    """Train, export to `target`, score the exported file and write its card beside it."""
    start = time.process_time()
    fresh = not (work / "run" / "weights" / "last.pt").exists()
    checkpoint = train(work, epochs, train_scenes)
    minutes = round((time.process_time() - start) / 60, 1) if fresh else None
    export(checkpoint, target)
    scores = evaluate(target, work)
    crowded = evaluate(target, work, VAL_SCENES, crowd=True)
    out = card(target, scores, crowded, epochs, minutes, train_scenes)
    target.with_name(target.stem + "_card.json").write_text(json.dumps(out, indent=1) + "\n")
    return out
