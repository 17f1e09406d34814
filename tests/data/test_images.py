import numpy as np
import pytest
import torch
from PIL import Image

from cmid.data.folder import FolderSource
from cmid.data.images import ImageLoader, resize_whole
from cmid.data.labelled import LabelledFolder
from cmid.errors import UsageError
from tests.data.conftest import picture


def test_the_shorter_side_is_resized_and_the_middle_taken():
    image = picture(0, 60, 40)
    expected = np.asarray(image.crop((10, 0, 50, 40)).resize((20, 20), Image.Resampling.BILINEAR))
    found = resize_whole(np.array(image), 20)
    assert found.shape == (3, 20, 20) and found.dtype == torch.uint8
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_with_labels_and_bad_files_are_reported(make_classes, workers):
    path = make_classes({"field": 4, "port": 3})
    (path / "field" / "field02.png").write_bytes(b"")
    images = LabelledFolder(path).all()
    loader = ImageLoader(images, 12, batch_size=3, workers=workers)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 3, 4, 5, 6]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 0, 1, 1, 1]
    assert loader.skipped == {2: "empty file"}
    for batch in batches:
        assert batch.images.shape == (len(batch.indices), 3, 12, 12)
        assert torch.equal(batch.images[0], resize_whole(images.read(int(batch.indices[0])), 12))


def test_no_labels_and_nothing_readable(make_folder):
    folder = make_folder(3)
    [batch] = ImageLoader(FolderSource(folder), 8, workers=0)
    assert batch.labels is None and batch.images.shape == (3, 3, 8, 8)
    for path in folder.iterdir():
        path.write_bytes(b"x")
    loader = ImageLoader(FolderSource(folder), 8, workers=0)
    assert list(loader) == [] and len(loader.skipped) == 3
    with pytest.raises(UsageError, match="at least 1"):
        ImageLoader(FolderSource(folder), 0)
