"""The command line as a person meets it."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from itertools import permutations

import pytest
import torch

from cmid.cli import SOURCE, main, read_words
from cmid.commands import VERBS, prepare, settings_class
from cmid.commands.settings import field_types
from cmid.errors import UsageError

HEAVY = {"torch", "torchvision", "lightning", "timm", "numpy", "kornia", "torchgeo", "sklearn", "matplotlib", "PIL"}


def settings(verb, *argv):
    words = read_words(verb, argv)
    return prepare(verb, words.given, kind=words.kind, source=SOURCE, **words.files)


def cmid(*argv, **more):
    return subprocess.run([sys.executable, "-m", "cmid", *argv], capture_output=True, text=True, timeout=60, **more)


# ---------------------------------------------------------------- help


WAYS = [(verb, kind) for verb, how in VERBS.items() for kind in (None, *how.apart)]
"""Every verb, and every kind that has settings of its own."""


def words(verb, kind):
    return [verb] if kind is None else [verb, kind]


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([*words(*way), "--help"] for way in WAYS)], ids=" ".join)
def test_help_imports_nothing_heavy(argv):
    code = f"import sys; from cmid.cli import main; main({argv!r}); print('MODULES', *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    text, modules = out.split("MODULES")
    assert not HEAVY & set(modules.split())
    assert text.startswith("usage: cmid") or re.match(r"cmid \d+\.", text)


def test_help_is_instant():
    def seconds():
        start = time.perf_counter()
        assert cmid("--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.7


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    listed = re.findall(r"^  (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert listed == list(VERBS)


@pytest.mark.parametrize(("verb", "kind"), WAYS)
def test_help_tells_of_every_setting(capsys, verb, kind):
    assert main([*words(verb, kind), "--help"]) == 0
    told = capsys.readouterr().out
    for name in field_types(settings_class(verb, kind)):
        assert re.search(rf"^  --{re.escape(name)} \S+\s+[A-Z`a-z]", told, re.MULTILINE), f"--{name} has no text"


def test_help_shows_the_docstrings_under_the_fields(capsys):
    main(["pretrain", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--views.size N Side of each crop in pixels, after resizing. [224]" in told
    assert "--cmid.mode {exact,parity} exact: what the paper asks for" in told
    assert "unset: a seeded 80 % of each class." in told
    assert "--recipe NAME" in told
    assert "--config FILE.yaml" in told


# ---------------------------------------------------------------- settings


def test_the_command_line_wins_wherever_it_stands(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("epochs: 7\nbatch_size: 6\nviews: {flip: 0.25}\n")
    parts = ["images"], ["--epochs", "3"], ["--config", str(mine)], ["--recipe", "cmid-tiny"], ["--views.size=128"]
    for order in permutations(parts):
        config = settings("pretrain", *(word for part in order for word in part))
        assert config.data == "images"
        assert config.epochs == 3, "the command line over the file and the recipe"
        assert config.views.size == 128, "the command line over the recipe"
        assert config.batch_size == 6, "the file over the recipe"
        assert config.views.flip == 0.25, "the file over the default"
        assert config.cmid.queue_size == 32, "the recipe over the default"


def test_a_default_on_the_command_line_wins_too(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("epochs: 7\n")
    assert settings("pretrain", "images", "--epochs", "200", "--config", str(mine)).epochs == 200


@pytest.mark.parametrize(
    ("argv", "name", "expected"),
    [
        (["--batch-size", "8"], "batch_size", 8),
        (["--batch_size=8"], "batch_size", 8),
        (["--train.workers", "-1"], "train.workers", -1),
        (["--optimizer.warmup-epochs", "1e-1"], "optimizer.warmup_epochs", 0.1),
        (["--resume"], "resume", True),
        (["--resume", "false"], "resume", False),
        (["--resume=true"], "resume", True),
        (["--no-report"], "report", False),
        (["--no-train.channels_last"], "train.channels_last", False),
        (["--views.scale", "0.2,1"], "views.scale", (0.2, 1.0)),
        (["--views.scale", "[0.2, 1]"], "views.scale", (0.2, 1.0)),
        (["--epochs", "3", "--epochs", "4"], "epochs", 4),
        (["--train.precision", "32"], "train.precision", "32"),
        (["--data", "here"], "data", "here"),
        (["--", "--odd"], "data", "--odd"),
    ],
)
def test_spellings(argv, name, expected):
    fallback = [] if name == "data" else ["images"]
    for line in ([*fallback, *argv], [*argv, *fallback]):
        config = settings("pretrain", *line)
        for part in name.split("."):
            config = getattr(config, part)
        assert config == expected


def test_words_without_an_option_keep_their_order_among_options():
    config = settings("evaluate", "knn", "w.safetensors", "--k", "5", "data")
    assert (config.weights, config.data, config.k) == ("w.safetensors", "data", (5,))
    assert settings("evaluate", "linear", "--weights", "random", "data").data == "data"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["pretran"], "Unknown verb 'pretran'. Did you mean pretrain"),
        (
            ["zzz"],
            "Unknown verb 'zzz'. There are pretrain, extract, evaluate, finetune, compare, generate, pack, prepare, "
            "doctor, predict, report, recipes, demo.",
        ),
        (
            ["pretrain", "x", "--bacth-size", "3"],
            "Unknown setting 'bacth_size' (command line). Did you mean batch_size",
        ),
        (["pretrain", "x", "--lr=3"], "Unknown setting 'lr' (command line). Did you mean optimizer.lr?"),
        (["pretrain", "x", "--recipes", "a"], "Unknown setting 'recipes' (command line). Did you mean recipe"),
        (["pretrain", "x", "-e", "3"], "Unknown setting 'e' (command line)."),
        (["pretrain", "x", "--no-epochs"], "Unknown setting 'no_epochs' (command line). Did you mean epochs"),
        (["pretrain", "x", "--views", "3"], "Unknown setting 'views' (command line)."),
        (["pretrain", "x", "--epochs", "ten"], "epochs (command line): expected a whole number, found 'ten'."),
        (["pretrain", "x", "--epochs"], "--epochs needs a value after it, found the end of the line."),
        (["pretrain", "x", "--epochs", "--resume"], "--epochs needs a value after it, found --resume."),
        (["pretrain", "x", "--method", "cmidd"], "found 'cmidd'. Did you mean cmid?"),
        (["pretrain", "x", "--train.precision", "fp16"], "expected one of auto, 32, bf16, 16, found 'fp16'."),
        (["pretrain", "x", "--recipe", "cmid-smal"], "Unknown recipe 'cmid-smal'. Did you mean cmid-small"),
        (["pretrain", "x", "--recipe", "a", "--recipe", "b"], "--recipe was given twice; give one."),
        (["pretrain", "x", "--config", "none.yaml"], "Cannot read the settings file none.yaml: No such file"),
        (["pretrain", "x", "y"], "Unexpected 'y': expected `cmid pretrain IMAGES` and options."),
        (["pretrain", "x", "--data", "y"], "Unexpected 'x': expected `cmid pretrain IMAGES` and options."),
        (["pretrain"], "`pretrain` needs IMAGES (setting 'data'), which was not given."),
        (["evaluate"], "`evaluate` needs to know what: one of knn, linear, classification, segmentation comes first."),
        (
            ["evaluate", "knnn", "w", "d"],
            "kind (command line): expected one of knn, linear, classification, segmentation, found 'knnn'.",
        ),
        (["evaluate", "knn", "w"], "`evaluate` needs DATA (setting 'data'), which was not given."),
        (["extract", "run", "--recipe", "cmid-small"], "`extract` has no recipes; leave out the recipe 'cmid-small'."),
        (["recipes", "nope"], "Unknown recipe 'nope'."),
    ],
)
def test_a_bad_request_is_one_line_and_code_2(capsys, argv, says):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cmid: error: ")
    assert err.count("\n") == 1
    assert says in err


# ---------------------------------------------------------------- the process


def test_a_name_longer_than_files_have_is_one_line_and_code_2(capsys, tmp_path):
    assert main(["doctor", str(tmp_path), "--out", "a" * 300]) == 2
    assert capsys.readouterr().err.startswith("cmid: error: no file can have a name this long: aaaa")


def test_a_bad_request_as_a_process():
    done = cmid("pretrain", "images", "--epoch", "3")
    assert done.returncode == 2
    assert done.stderr == (
        "cmid: error: Unknown setting 'epoch' (command line). "
        "Did you mean epochs, knn.every_epochs, optimizer.warmup_epochs?\n"
    )


def test_nobody_reads_the_output():
    command = [sys.executable, "-m", "cmid", "pretrain", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


def test_interrupted(tmp_path):
    pipe = tmp_path / "settings.yaml"
    os.mkfifo(pipe)  # reading settings from it waits for ever
    process = subprocess.Popen([sys.executable, "-m", "cmid", "recipes", "--config", pipe], stderr=subprocess.PIPE)
    writer = None
    while writer is None:
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            assert process.poll() is None
            time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == b"cmid: interrupted\n"
    process.stderr.close()
    os.close(writer)


def test_an_error_keeps_its_code(capsys, tmp_path):
    assert main(["extract", str(tmp_path / "no-such-run")]) == 2
    assert "no-such-run" in capsys.readouterr().err


def test_want_of_memory_is_one_line_and_other_mistakes_of_ours_keep_their_traceback(capsys, monkeypatch):
    monkeypatch.setattr("cmid.cli.carry_out", lambda *_, **__: torch.empty(1 << 60))
    assert main(["recipes"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("cmid: error: memory was short: ") and "smaller batches" in told and told.count("\n") == 1
    monkeypatch.setattr("cmid.cli.carry_out", lambda *_, **__: torch.zeros(2, 3) @ torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        main(["recipes"])


def test_read_words_does_not_guess():
    with pytest.raises(UsageError):
        read_words("pretrain", ["images", "--epo", "3"])


def test_a_kind_is_not_taken_from_the_value_of_an_option():
    said = read_words("finetune", ["--out", "classification", "segmentation", "W", "D", "--labels.palette", "p.json"])
    assert said.kind == "segmentation" and said.given["labels.palette"] == "p.json"
    assert (
        read_words("finetune", ["--resume", "segmentation", "W", "D", "--labels.palette", "p"]).kind == "segmentation"
    )


def test_names_that_are_no_text_can_be_told(tmp_path):
    script = "import sys; from cmid.cli import main; main(['--version']); print('\\udce4')"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert told.stdout.endswith(b"\xe4\n")
