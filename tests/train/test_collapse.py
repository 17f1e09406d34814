import pytest

from cmid.train.collapse import collapse_warning, warn_of_collapse

from .small_run import Probe, run_fit

HEALTHY = {"feature_std": 0.012, "effective_rank": 90.0}


@pytest.mark.parametrize(
    ("values", "earlier", "words"),
    [
        (HEALTHY, [], None),
        (HEALTHY, [HEALTHY, {"feature_std": 0.02, "effective_rank": 200.0}], None),
        ({"knn_top1": 3.0}, [HEALTHY], None),
        ({"feature_std": 1e-5}, [], "feature_std) is 1e-05, near nothing"),
        ({"effective_rank": 1.2}, [], "effective_rank) is 1.2, near nothing"),
        ({"feature_std": 0.002}, [HEALTHY], "fell from 0.012 to 0.002"),
        ({"effective_rank": 8.0}, [{"knn_top1": 1.0}, HEALTHY], "fell from 90 to 8"),
        ({"feature_std": float("nan")}, [HEALTHY], "is nan"),
    ],
)
def test_what_counts_as_collapse(values, earlier, words):
    text = collapse_warning(values, earlier)
    assert text is None if words is None else words in text
    said = []
    assert warn_of_collapse(values, earlier, said.append) == (words is not None)
    assert len(said) == (words is not None)


def test_a_run_warns_once_when_features_collapse(tmp_path, capsys):
    probe = Probe(feature_std=[0.01, 0.0101, 1e-4, 1e-4, 1e-4], effective_rank=[60.0, 61.0, 2.5, 1.1, 1.1])
    run_fit(tmp_path / "r", epochs=5, probes=[probe])
    out = capsys.readouterr().err
    assert out.count("Warning: Features are collapsing") == 1
    assert out.index("epoch 3/5") < out.index("Warning") < out.index("epoch 4/5")
    assert "Try a lower learning rate" in out
