import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST


@pytest.fixture
def images(tmp_path, save_image):
    """A manifest of two training and four test images."""
    rows = []
    for n in range(6):
        save_image(tmp_path / f"{n}.png", n)
        rows.append(
            {
                "image_id": str(n),
                "path": f"{n}.png",
                "dataset": "d",
                "category": "c",
                "label": 0,
                "split": "train" if n < 2 else "test",
                "mask_paths": [],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    return tmp_path / "m.parquet"
