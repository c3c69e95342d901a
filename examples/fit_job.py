"""A job that uploads a file: it fits a line through points, and leaves the model and a log.

A job runs to its end, with a time limit of its own; what lies in its output folder afterwards is
kept. Run it here: chutes run fit_job:chute --dev --dev-job-method fit. Run it on the network, once
it is deployed: chutes jobs run fit fit --output-dir out
"""

import json
from pathlib import Path
from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

POINTS = [(0.0, 1.0), (1.0, 3.1), (2.0, 4.9), (3.0, 7.2), (4.0, 8.8)]

image = Image(username="demo", name="fit", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="demo",
    name="fit",
    image=image,
    tagline="Fits a line",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.job(timeout=600, upload=True)
def fit(
    self: Any,
    output_dir: str,
    points: list[tuple[float, float]] | None = None,
    steps: int = 500,
    rate: float = 0.05,
) -> dict[str, float]:
    """Go down the gradient of the squared error, and keep each hundredth step."""
    wanted = points or POINTS
    slope = offset = 0.0
    log = ["step,loss"]
    for step in range(steps):
        errors = [(x, slope * x + offset - y) for x, y in wanted]
        slope -= rate * 2 * sum(x * error for x, error in errors) / len(errors)
        offset -= rate * 2 * sum(error for _, error in errors) / len(errors)
        if step % 100 == 0:
            log.append(f"{step},{sum(error * error for _, error in errors) / len(errors):.6f}")
    model = {"slope": round(slope, 4), "offset": round(offset, 4)}
    Path(output_dir, "model.json").write_text(json.dumps(model))
    Path(output_dir, "log.csv").write_text("\n".join(log) + "\n")
    return model
