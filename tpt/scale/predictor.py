"""The class that an actor of Ray Data runs: pictures in, records out.

    model = tpt.scale.Predictor.prepare(PredictSettings(classes=("cat", "dog")))
    rows.map_batches(tpt.scale.Predictor, fn_constructor_args=(model,), compute=pool, num_cpus=1)

A batch is a dict of columns or an Arrow table: `bytes` holds image files, `path` their names. The
result has the other columns and `label`, `score`, `error` and `record` (the whole record as JSON).
A bad picture gives a row with an error; it does not fail the block.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from tpt.errors import MethodError
from tpt.prompts import Context
from tpt.scale.reading import fold, unfold
from tpt.scale.sharing import Shared, join, split
from tpt.streaming.items import Item, fail_item, hold_bytes
from tpt.streaming.loading import TIME_LIMIT
from tpt.streaming.pipeline import stream
from tpt.streaming.predict_job import PredictJob, assemble_job, load_model
from tpt.streaming.predict_settings import PredictSettings, check_method_options

_VIEWS_A_GROUP = 512


@dataclass(frozen=True)
class Prepared:
    """An actor's arguments, with the model in the object store."""

    wanted: PredictSettings
    context: Context | None
    weights: Any  # reference to a `Shared` of the model and its tokenizer
    names: tuple[Any, ...]  # the model's name, weights' tag and digest
    top_k: int = 5
    batch_size: int | None = None
    num_workers: int = 2
    time_limit: float | None = TIME_LIMIT
    group: int = 8  # pictures that an actor gets at a time; a kill loses at most these


class Predictor:
    """Predict batches of encoded pictures with a model that all actors of a node share.

    Args:
        prepared: from `Predictor.prepare`.
        column: the name of the column of encoded pictures.
        key: the name of the column of picture names; if it is missing, pictures are numbered.
        device: to compute on; default: the GPU if Ray gave the actor one, else the CPU.
    """

    def __init__(
        self,
        prepared: Prepared,
        column: str = "bytes",
        key: str = "path",
        device: str | None = None,
    ) -> None:
        import ray
        import torch

        from tpt.model.clip import Clip

        if device is None:
            device = "cuda" if ray.get_gpu_ids() else "cpu"
        if device == "cpu":
            torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        weights = prepared.weights
        model, tokenizer = join(weights if isinstance(weights, Shared) else ray.get(weights))
        name, tag, digest = prepared.names
        model = model.to(device) if device != "cpu" else model
        clip = Clip(model, tokenizer, name=name, pretrained=tag, digest=digest)
        self.job = assemble_job(prepared.wanted, clip, prepared.context)
        self.prepared, self.column, self.key = prepared, column, key

    @staticmethod
    def prepare(wanted: PredictSettings, job: PredictJob | None = None, **options: Any) -> Prepared:
        """Load the model once, and put its weights into the object store.

        Args:
            wanted: the settings of `tpt predict`.
            job: an existing job for these settings; its model must be on the CPU.
            options: `top_k`, `batch_size`, `num_workers`, `time_limit`, as for `tpt.stream`.

        Raises:
            MethodError: a method whose result for an image depends on others; `jacobian=True`.
            TptError: as `tpt.streaming.predict_job.build_predict_job`.
        """
        import ray

        check_method_options(wanted)
        if wanted.jacobian:
            raise MethodError(
                "Each actor would have to build the start's Jacobian (jacobian=True). Leave it "
                "out, or predict without Ray."
            )
        context = Context.load(wanted.init) if wanted.init is not None else None
        wanted = replace(wanted, device="cpu")
        clip = job.clip if job is not None else load_model(wanted, context)
        job = job or assemble_job(wanted, clip, context)
        method = job.method
        if method.keeps_state or method.together is not None:
            raise MethodError(
                f"--method {wanted.method} learns from earlier images or decides on several "
                "together, so its results depend on their order, which many machines do not keep. "
                "Use another method, or run it without Ray."
            )
        weights = ray.put(split((clip.model, clip.tokenizer)))
        names = clip.name, clip.pretrained, clip.digest
        # Enough work to make Ray's overhead small, and so little that actors end together.
        group = max(8, _VIEWS_A_GROUP // (job.views.n if method.reads_views else 1))
        return Prepared(wanted, context, weights, names, group=group, **options)

    def __call__(self, batch: Any) -> Any:
        """One batch; a dict of lists for a dict, an Arrow table for a table."""
        is_table = not isinstance(batch, dict)
        columns: dict[str, Any] = batch.to_pydict() if is_table else dict(batch)
        pictures = columns.pop(self.column)
        keys = [_as_text(key) for key in columns.get(self.key, range(len(pictures)))]
        errors = columns.pop("error", [None] * len(keys))
        items = [make_item(*row) for row in zip(keys, pictures, errors, strict=True)]
        records = list(self._stream(items))
        first = [record.predictions[0] if record.predictions else None for record in records]
        columns |= {
            "label": [each.label if each else None for each in first],
            "score": [each.score if each else None for each in first],
            "error": [record.error.message if record.error else None for record in records],
            "record": [record.to_json() for record in records],
        }
        return _make_table(columns) if is_table else columns

    def _stream(self, items: list[Item]) -> Any:
        options = self.prepared
        return stream(
            items,
            self.job.method,
            self.job.views,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            top_k=options.top_k,
            time_limit=options.time_limit,
        )


class GroupPredictor(Predictor):
    """A predictor of folded tables, so that Ray Data keeps groups whole."""

    def __call__(self, batch: Any) -> Any:
        return fold(super().__call__(unfold(batch)))


def make_item(key: str, data: Any, error: str | None) -> Item:
    """One row as an item: its bytes or its error."""
    if error:
        return fail_item(key, error)
    if data is None or len(data) == 0:
        return fail_item(key, f"{key!r} has no picture: its bytes are NULL or empty. Fill them in.")
    return hold_bytes(key, bytes(data))


def _as_text(key: Any) -> str:
    return os.fsdecode(key) if isinstance(key, bytes) else str(key)


def _make_table(columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    kinds = {"label": pa.string(), "score": pa.float64(), "error": pa.string()}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
    return pa.table(arrays)
