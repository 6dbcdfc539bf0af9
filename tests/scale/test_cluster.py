"""Two Ray nodes give the rows of a single run, also when one dies or the driver stops early."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tpt
from tpt.scale import Pool, Predictor, predict
from tpt.streaming.folders import Search
from tpt.streaming.predict_job import PredictJob, PredictSettings, assemble_job
from tpt.streaming.sources import Found, find_sources

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
STORE = 100 * 2**20
COUNT = 40  # pictures in the folder, and as many in a tar


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "in").mkdir()
    with tarfile.open(root / "s.tar", "w") as archive:
        for number in range(COUNT):
            pixels = np.random.RandomState(number).randint(0, 256, (9, 8, 3), dtype=np.uint8)
            path = root / "in" / f"{number}.png"
            Image.fromarray(pixels).resize((48, 40)).save(path)
            archive.add(path, path.name)
    (root / "in" / "bad.png").write_text("no picture")
    return root


def find(folder: Path) -> Found:
    return find_sources([str(folder / "in"), str(folder / "s.tar")], Search())


def timeless(record: dict[str, Any]) -> str:
    record.get("adapt", {}).pop("ms", None)
    return json.dumps(record, sort_keys=True)


def test_rows_are_those_of_a_single_run_whatever_dies(
    nodes: Any, folder: Path, tiny: tpt.Clip
) -> None:
    wanted = PredictSettings(classes=("cat", "dog", "cup"), model="tiny", views=4, device="cpu")
    job: PredictJob = assemble_job(wanted, tiny, None)
    single = [r.to_dict() for r in tpt.stream(iter(find(folder)), job.method, job.views)]
    assert len(single) == 2 * COUNT + 1
    expected = sorted(map(timeless, single))
    prepared = Predictor.prepare(wanted, job)

    # The driver stops after some rows; the next run computes the others alone.
    records = predict(find(folder), prepared, Pool(2, 2))
    first = [next(records) for _ in range(10)]
    records.close()  # type: ignore[attr-defined]
    done = {record["path"] for record in first}
    records = predict(find(folder), prepared, Pool(2, 2), done=done)
    rest = [next(records)]
    nodes.remove_node(next(iter(nodes.worker_nodes)))  # and a node dies
    rest += records
    assert not done & {record["path"] for record in rest}
    assert sorted(map(timeless, [*first, *rest])) == expected
