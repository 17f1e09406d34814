"""Settings from several places: who wins, what is converted, what an error says."""

import itertools
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from cmid.commands.settings import field_types, read_yaml, resolve
from cmid.config import CMIDConfig, CompareConfig, EvaluateConfig, PretrainConfig, ReportConfig, ViewConfig, as_plain
from cmid.errors import UsageError, nearest


def test_nothing_given_is_the_defaults():
    assert resolve(PretrainConfig) == PretrainConfig()


def test_each_place_wins_over_the_one_before(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("epochs: 7\nbatch_size: 6\n")
    recipe = resolve(PretrainConfig, recipe="cmid-tiny")
    assert (recipe.epochs, recipe.batch_size, recipe.views.size, recipe.seed) == (1, 4, 64, 0)
    both = resolve(PretrainConfig, {"epochs": 9}, recipe="cmid-tiny", config=mine)
    assert (both.epochs, both.batch_size, both.views.size, both.seed) == (9, 6, 64, 0)


def test_a_group_is_merged_field_by_field(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("views: {size: 96, flip: 0.1}\n")
    views = resolve(PretrainConfig, {"views": {"flip": 0.2}}, config=mine).views
    assert views == ViewConfig(size=96, flip=0.2)


def test_what_a_run_writes_down_can_be_read_again(tmp_path):
    before = resolve(PretrainConfig, {"knn.data": "x", "train.loggers": ["wandb"], "train.channels_last": "true"})
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(as_plain(before)))
    assert resolve(PretrainConfig, config=path) == before


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "5", 5),
        ("optimizer.lr", "1e-3", 1e-3),
        ("optimizer.lr", 1, 1.0),
        ("views.scale", "0.2,1", (0.2, 1.0)),
        ("views.scale", "[0.2, 1]", (0.2, 1.0)),
        ("views.scale", [0.2, 1], (0.2, 1.0)),
        ("views.mean", "0.1,0.2,0.3,0.4", (0.1, 0.2, 0.3, 0.4)),
        ("train.precision", 32, "32"),
        ("train.precision", "32", "32"),
        ("train.loggers", "wandb,mlflow", ("wandb", "mlflow")),
        ("train.channels_last", None, None),
        ("train.channels_last", "null", None),
        ("train.channels_last", False, False),
        ("resume", "yes", True),
        ("out", "2024", "2024"),
        ("out", Path("runs/a"), "runs/a"),
        ("batch-size", 8, 8),
        ("epochs", np.int64(1), 1),
        ("optimizer.lr", np.float32(0.5), 0.5),
        ("optimizer.lr", np.float64(0.5), 0.5),
        ("resume", np.bool_(True), True),
        ("views.scale", (np.float64(0.5), np.float32(1)), (0.5, 1.0)),
        ("views.mean", np.array([0.25, 0.5, 0.75]), (0.25, 0.5, 0.75)),
    ],
)
def test_values_are_converted(name, value, expected):
    config = resolve(PretrainConfig, {name: value})
    for part in name.replace("-", "_").split("."):
        config = getattr(config, part)
    assert config == expected
    assert type(config) is type(expected)
    if isinstance(expected, tuple):  # numbers of numpy would not be written down as numbers
        assert [type(each) for each in config] == [type(each) for each in expected]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epochs": "ten"}, "epochs (the call): expected a whole number, found 'ten'."),
        ({"epochs": 2.5}, "epochs (the call): expected a whole number, found 2.5."),
        ({"epochs": np.float64(2.5)}, "epochs (the call): expected a whole number, found 2.5."),
        ({"epochs": np.bool_(True)}, "epochs (the call): expected a whole number, found True."),
        ({"epochs": True}, "epochs (the call): expected a whole number, found True."),
        ({"epochs": None}, "epochs (the call): expected a whole number, found nothing (null)."),
        ({"optimizer": {"lr": "nan"}}, "optimizer.lr (the call): expected a finite number, found 'nan'."),
        ({"resume": 1}, "resume (the call): expected true or false, found 1."),
        ({"knn": {"data": 3}}, "knn.data (the call): expected text or nothing (null), found 3."),
        ({"views": {"scale": "1"}}, "views.scale (the call): expected a list of 2, each a finite number, found '[1]'."),
        ({"views": 96}, "views (the call): expected a group of settings (views.size, views.scale, views.ratio ...)"),
        (
            {"cmid.mode": "exat"},
            "cmid.mode (the call): expected one of exact, parity, found 'exat'. Did you mean exact?",
        ),
        ({"method": "dino"}, "method (the call): expected one of cmid, byol"),
        ({"train": {"precision": 64}}, "expected one of auto, 32, bf16, 16, found '64'."),
        ({"train": {"loggers": "wand"}}, "train.loggers (the call): expected a list, each one of tensorboard, wandb"),
        ({"out": "a\0b"}, "out (the call): 'a\\x00b' holds a NUL, or half of a letter"),
        ({"scenes": {"bands": ("red", "\ud800")}}, "scenes.bands (the call): '\\ud800' holds a NUL, or half"),
        ({"epoch": 3}, "Unknown setting 'epoch' (the call). Did you mean epochs"),
        ({"views": {"sise": 3}}, "Unknown setting 'views.sise' (the call). Did you mean views.size"),
        ({"lr": 3}, "Unknown setting 'lr' (the call). Did you mean optimizer.lr?"),
        ({"zzz": 3}, "Unknown setting 'zzz' (the call). There are data, source, out, method"),
    ],
)
def test_a_wrong_setting_is_named(given, says):
    with pytest.raises(UsageError) as caught:
        resolve(PretrainConfig, given)
    assert says in str(caught.value)


def test_the_error_names_the_file(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("views:\n  sise: 96\n")
    with pytest.raises(UsageError, match=r"'views.sise' \(.*mine.yaml\). Did you mean views.size"):
        resolve(PretrainConfig, config=mine)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"views: [1\nepochs: 3", "line 2 is not valid YAML"),
        (b"- epochs\n", "expected lines of `field: value`, found ['epochs']"),
        (b"\xff\xfe\x00", "not valid YAML: it is not UTF-8 text"),
        (
            b"epochs: 3\nviews:\n  small-size: 9\n  small_size: 8\n",
            "line 4 is not valid YAML: small_size is given twice",
        ),
        (b"views: {size: 9}\nviews.size: 8\n", "views.size ({path}) is given twice"),
        (b"devices: 1\ntrain:\n  devices: 1\n", "train.devices ({path}) is given twice"),
        (b"[" * 5000, "nested too deeply"),
        (b"out: 2024-02-30\n", "not valid YAML: day is out of range for month"),
        (
            b"a: &a [1,1,1,1,1,1,1,1,1]\n"
            + b"".join(f"{x}: &{x} [{','.join([f'*{y}'] * 9)}]\n".encode() for y, x in itertools.pairwise("abcdefghi")),
            "repeats parts of itself to more than 100,000 values",
        ),
        (b"x: !!python/object/apply:os.getcwd []", "is not valid YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_settings(tmp_path, content, says):
    mine = tmp_path / "mine.yaml"
    mine.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        resolve(PretrainConfig, config=mine)
    assert says.replace("{path}", str(mine)) in str(caught.value)
    assert str(mine) in str(caught.value)


@pytest.mark.parametrize(("name", "says"), [("none.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read(tmp_path, name, says):
    with pytest.raises(UsageError, match=f"Cannot read the settings file .*{says}"):
        resolve(PretrainConfig, config=tmp_path / name)


def test_the_users_own_folder_is_found_where_no_shell_has_written_it_out(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    made = resolve(PretrainConfig, {"data": "~/images", "out": "~", "knn.data": "a~/b"})
    assert (made.data, made.out, made.knn.data) == (f"{tmp_path}/images", str(tmp_path), "a~/b")


def test_one_value_is_a_list_of_one():
    assert resolve(EvaluateConfig, {"k": 3}).k == resolve(EvaluateConfig, {"k": "3"}).k == (3,)
    assert resolve(EvaluateConfig, {"regularisation": 0.5}).regularisation == (0.5,)
    with pytest.raises(UsageError, match="expected a list of 2"):
        resolve(PretrainConfig, {"views.scale": 0.5})


def test_an_empty_file_sets_nothing(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("# nothing yet\n")
    assert resolve(PretrainConfig, config=mine) == PretrainConfig()


def test_a_dataclass_is_a_config_too():
    assert resolve(ReportConfig, config=ReportConfig(run="a", images=3)) == ReportConfig(run="a", images=3)
    assert resolve(PretrainConfig, {"cmid": CMIDConfig(mode="parity")}).cmid.mode == "parity"


@pytest.mark.parametrize("kind", [PretrainConfig, EvaluateConfig])
def test_every_field_is_known_by_its_dotted_name(kind):
    def leaves(tree, prefix=""):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else (prefix + key,)

    assert list(field_types(kind)) == list(leaves(asdict(kind())))


def test_numbers_of_numpy_in_a_dataclass_are_python_s():
    config = resolve(PretrainConfig, config=PretrainConfig(epochs=np.int64(3)))
    assert type(config.epochs) is int and yaml.safe_dump(as_plain(config))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ("", []),
        ("[]", []),
        ("swav?views.small_scale=[0.05,0.2],byol", ["swav?views.small_scale=[0.05,0.2]", "byol"]),
        ("[swav?views.small_scale=[0.05, 0.2], byol]", ["swav?views.small_scale=[0.05, 0.2]", "byol"]),
    ],
)
def test_a_list_of_texts_is_split_outside_of_brackets(text, parts):
    assert list(resolve(CompareConfig, {"methods": text}).methods) == parts


def test_names_are_near_whatever_their_case():
    assert nearest("eurosat", ["EverWatch", "EuroSAT", "COWC"])[0] == "EuroSAT"
    assert nearest("zzzz", ["EuroSAT"]) == []


def test_what_is_merged_may_name_a_key_again(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("views: &v {size: 64, flip: 0.1}\npretrain: {views: {<<: *v, size: 32}}\n")
    assert read_yaml(mine)["pretrain"] == {"views": {"size": 32, "flip": 0.1}}


def test_names_of_files_that_are_no_text_are_kept():
    assert resolve(PretrainConfig, {"data": "caf\udce9"}).data == "caf\udce9"


def test_a_recipe_may_be_a_path_and_is_named_if_it_is_none():
    assert resolve(PretrainConfig, recipe=Path("cmid-tiny")).backbone == "test_resnet"
    with pytest.raises(UsageError, match=r"Unknown recipe '3'"):
        resolve(PretrainConfig, recipe=3)
