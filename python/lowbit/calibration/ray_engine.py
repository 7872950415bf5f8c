"""Calibration over a ray cluster: a map over shares of the batches, then a merge."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import Any

from lowbit.calibration.table import CalibrationTable

_TRIES = 3  # more, for a share whose worker or machine goes away; errors of the calibration itself are not tried again


def calibrate_on_ray(
    net: Any, batches: Any, progress: Callable[[int, int | None], None] | None, options: dict[str, Any]
) -> CalibrationTable:
    """Deal the batches to one task per CPU of the cluster; progress counts tasks.

    The net must be a path that every node can read, or a ModelProto. A list of batches is read here and shipped; a
    function is shipped and called by every task, which takes its share: nothing but the tables then travels. A share
    whose worker dies is done again, from its beginning, on another one.
    """
    try:
        import ray
    except ImportError as e:
        raise ImportError('calibrate: engine="ray" needs ray: pip install "lowbit[ray]"') from e

    from lowbit.calibration.run import calibrate

    items = None if callable(batches) else list(batches)
    if items is not None and not items:
        raise ValueError("calibrate: no samples in the batches")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    count = max(1, int(ray.cluster_resources().get("CPU", 1)))
    if items is not None:
        count = min(count, len(items))

    @ray.remote(max_retries=_TRIES, retry_exceptions=False)  # type: ignore[untyped-decorator, unused-ignore]
    def share(i: int, own: list[Any] | None) -> CalibrationTable | None:
        stream = islice(batches(), i, None, count) if own is None else iter(own)
        first = list(islice(stream, 1))
        if not first:
            return None
        return calibrate(net, chain(first, stream), **{**options, "threads": options["threads"] or 1})

    tasks = [share.remote(i, None if items is None else items[i::count]) for i in range(count)]
    del items
    table: CalibrationTable | None = None
    for done, task in enumerate(tasks, 1):
        one = ray.get(task)
        table = one if table is None else table if one is None else table.merge(one)
        if progress is not None:
            progress(done, count)
    if table is None:
        raise ValueError("calibrate: no samples in the batches")
    return table
