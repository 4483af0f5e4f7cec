import os
import signal
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test fetches anything; a name that is none fails at once
signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` in a script would ignore it


def pytest_collection_modifyitems(items):
    """The slow ones first, so that no core is idle while the other is at the last long one."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> Path:
    from tests.tiny import tiny_qwen2_vl

    return tiny_qwen2_vl(tmp_path_factory.mktemp("qwen2-vl"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    from tests.tiny import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def save_image():
    """save(path, seed or array): writes an image and returns the path."""
    from PIL import Image

    def save(path: Path, content=0, **options) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            content = np.random.default_rng(content).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(content).save(path, **options)
        return path

    return save


@pytest.fixture(scope="session")
def internvl(tmp_path_factory) -> Path:
    from tests.tiny import tiny_internvl

    return tiny_internvl(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="session")
def llava(tmp_path_factory) -> str:
    """For VMAD: six layers of CLIP."""
    from tests.tiny import tiny_deep_llava

    return str(tiny_deep_llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture(scope="session")
def sam(tmp_path_factory) -> str:
    from tests.tiny import tiny_sam

    return str(tiny_sam(tmp_path_factory.mktemp("sam")))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Manifest rows of four images: tests.vmad_world.paint."""
    from tests.vmad_world import paint

    return paint(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def tiles(tmp_path_factory):
    """Twelve ranked questions: tests.sage_world.World."""
    from tests.sage_world import build

    return build(tmp_path_factory.mktemp("tiles"), 12)


@pytest.fixture(scope="session")
def sfe_models(tiles, internvl, tmp_path_factory) -> dict[int, Path]:
    """SFE models by rank of LoRA; 0 = all weights trained."""
    from stages.sage.sfe import run
    from tests.sage_world import QUIET, sfe_config

    outs = {rank: tmp_path_factory.mktemp("sfe") / "model" for rank in (4, 0)}
    for rank, out in outs.items():
        run(sfe_config(tiles, internvl, out, lora_rank=rank), QUIET)
    return outs


@pytest.fixture(scope="session")
def edpo_models(tiles, sfe_models, tmp_path_factory) -> dict[int, Path]:
    """What E-DPO made of them."""
    from stages.sage.edpo import run
    from tests.sage_world import QUIET, edpo_config

    outs = {rank: tmp_path_factory.mktemp("edpo") / "model" for rank in (4, 0)}
    for rank, out in outs.items():
        run(edpo_config(tiles, sfe_models[rank], out), QUIET)
    return outs


@pytest.fixture
def two_categories(tmp_path, save_image):
    """Categories a and b, each 3 normal and 4 anomalous images of 40 x 60 with maps of 20 x 30."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.artifacts.maps import to_row
    from stages.artifacts.tables import MANIFEST, MAPS, SCORES
    from stages.evaluate.images import EvaluateConfig

    rng = np.random.default_rng(0)
    manifest, scores, maps, kept = [], [], [], {}
    for category in "ab":
        for n in range(7):
            key, mask = f"{category}{n}", np.zeros((40, 60), bool)
            if n > 2:
                mask[4 * n - 8 : 4 * n, 10:30] = True
            small = (rng.normal(size=(20, 30)) + 2 * mask[::2, ::2]).astype(np.float16)
            save_image(tmp_path / f"{key}.png", n)
            if n > 2:
                save_image(tmp_path / f"{key}_mask.png", mask.astype(np.uint8) * 255)
            manifest.append(
                {
                    "image_id": key,
                    "path": f"{key}.png",
                    "dataset": "d",
                    "category": category,
                    "split": "test",
                    "label": int(n > 2),
                    "width": 60,
                    "height": 40,
                    "mask_paths": [f"{key}_mask.png"] if n > 2 else [],
                }
            )
            scores.append({"image_id": key, "method": "m", "score": float(small.max())})
            maps.append(to_row((key, "m"), small))
            kept[key] = (small, mask)
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), tmp_path / "m.parquet")
    pq.write_table(pa.Table.from_pylist(scores, schema=SCORES.schema), tmp_path / "s.parquet")
    pq.write_table(pa.Table.from_pylist(maps, schema=MAPS.schema), tmp_path / "maps.parquet")
    config = EvaluateConfig(
        scores=tmp_path / "s.parquet",
        manifest=tmp_path / "m.parquet",
        maps=tmp_path / "maps.parquet",
        root=tmp_path,
        out=tmp_path / "metrics",
        tables=tmp_path / "tables",
        report=tmp_path / "report.html",
        thresholds=tmp_path / "thresholds",
        heatmaps=tmp_path / "heat",
        resamples=50,
    )
    return config, kept
