"""Calibration over a ray cluster: a map over shards of the batches, then a merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lowbit.calibration.table import CalibrationTable


def calibrate_on_ray(
    net: Any, batches: Any, progress: Callable[[int, int | None], None] | None, options: dict[str, Any]
) -> CalibrationTable:
    """Deal the batches to one task per CPU of the cluster; progress counts tasks.

    The net must be a path that every node can read, or a ModelProto, and ray must be able to ship the batches.
    """
    try:
        import ray
    except ImportError as e:
        raise ImportError('calibrate: engine="ray" needs ray: pip install "lowbit[ray]"') from e

    from lowbit.calibration.run import calibrate

    items = list(batches() if callable(batches) else batches)
    if not items:
        raise ValueError("calibrate: no samples in the batches")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    count = max(1, min(len(items), int(ray.cluster_resources().get("CPU", 1))))

    @ray.remote  # type: ignore[untyped-decorator, unused-ignore]
    def part(i: int, own: list[Any]) -> CalibrationTable:
        table = calibrate(net, own, **{**options, "threads": options["threads"] or 1})
        table.shards = [(i, count)] if count > 1 else []
        return table

    tasks = [part.remote(i, items[i::count]) for i in range(count)]
    table: CalibrationTable | None = None
    for done, task in enumerate(tasks, 1):
        one = ray.get(task)
        table = one if table is None else table.merge(one)
        if progress is not None:
            progress(done, count)
    assert table is not None
    return table
