"""Predict on a cluster: sources in, a stream of records out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from tpt.errors import ModelError, describe_error
from tpt.scale.cluster import Pool
from tpt.scale.predictor import GroupPredictor, Prepared
from tpt.scale.reading import digest_keys, make_units, read_unit
from tpt.streaming.items import Reading
from tpt.streaming.sources import Found

_BLOCK = 1  # byte, so that every row is a block; a row is a group of pictures
_IN_FLIGHT = 2  # most groups of an actor: one at work and one waiting
_READERS = 8  # tasks that read at a time; they need little CPU time


def predict(
    found: Found,
    prepared: Prepared,
    pool: Pool,
    reading: Reading | None = None,
    done: set[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of sources as plain data, in order of arrival.

    Tasks read pictures, a pool of actors predicts, and this process collects the records. If a node
    dies, others compute its open groups again.

    Args:
        found: the sources.
        prepared: from `Predictor.prepare`.
        pool: the actors.
        reading: how files that hold many pictures are read.
        done: keys to skip.

    Raises:
        ModelError: the actors cannot start, or the cluster has failed.
    """
    import ray

    units = make_units(found, done or set())
    if not units:
        return
    pool = pool.fit(ray.cluster_resources(), len(units))
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with ray.data.DataContext.current(context):
        rows: Any = ray.data.from_items(units, override_num_blocks=len(units))
        rows = rows.map_batches(
            partial(
                read_unit,
                reading=reading or Reading(),
                done=digest_keys(done or ()),
                most=prepared.group,
            ),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0,  # else they would wait forever when actors hold all CPUs
            compute=ray.data.TaskPoolStrategy(min(_READERS, len(units))),
        )
        rows = rows.map_batches(
            GroupPredictor,
            fn_constructor_args=(prepared,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                max_tasks_in_flight_per_actor=_IN_FLIGHT,
            ),
        )
        try:
            for batch in rows.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            ):
                for group in batch.column("record").to_pylist():
                    yield from map(json.loads, group)
        except ray.exceptions.RayError as error:
            raise ModelError(
                f"The cluster failed ({describe_error(error)[:500]}). The records so far are "
                "whole; put this right, then go on with --resume."
            ) from error
