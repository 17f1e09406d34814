"""How fast a method trains, measured in processes of its own."""

import json
import subprocess
import sys

import yaml

from cmid.commands import prepare
from cmid.commands.compare_plan import plan_rows
from cmid.config import as_plain


def test_the_pace_of_two_processes_is_told_once(tmp_path):
    """Two begin, in a process of their own each; measured in the comparison's, the second would have compared, too."""
    given = {"data": "images", "labelled": "labelled", "methods": ("byol",), "pretrain.backbone": "test_resnet"}
    given |= {"pretrain.views.size": 32, "pretrain.batch_size": 4, "pretrain.train.devices": 2}
    [row] = plan_rows(prepare("compare", given | {"pretrain.train.accelerator": "cpu"}))
    settings, result = tmp_path / "settings.yaml", tmp_path / "pace.json"
    settings.write_text(yaml.safe_dump(as_plain(row.config)))
    line = [sys.executable, "-m", "cmid.commands.pace", str(settings), str(result)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(result.read_text())["images_per_s"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pace.json", "settings.yaml"]
