"""What is known of a face before it is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densegen.errors import ConfigurationError
from densegen.face.morphable_model import MorphableModel
from densegen.fitting.prior import prior_of_model, read_prior
from densegen.sources.fits import fit_bytes, read_fit
from densegen.synthetic.corpus import SUBSET


def test_a_models_prior_is_its_own_spread_about_the_mean(model: MorphableModel) -> None:
    prior = prior_of_model(model)
    assert not prior.mean.any()
    np.testing.assert_array_equal(prior.std, np.concatenate([model.shape_std, model.expression_std]).astype(float))


def test_a_model_that_states_no_spread_asks_for_fits(model: MorphableModel) -> None:
    silent = replace(model, shape_std=np.ones_like(model.shape_std), expression_std=np.ones_like(model.expression_std))
    with pytest.raises(ConfigurationError, match="give a folder of fits"):
        prior_of_model(silent)


def test_a_prior_of_fits_is_their_mean_and_spread(corpus: Path, model: MorphableModel) -> None:
    fits = [read_fit(p) for p in sorted((corpus / SUBSET).glob("*.mat"))]
    prior = read_prior(corpus, model)
    table = np.stack([np.concatenate([f.shape, f.expression]) for f in fits]).astype(float)
    np.testing.assert_allclose(prior.mean, table.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(prior.std, table.std(axis=0), rtol=1e-12)


def test_too_few_fits_are_said(corpus: Path, model: MorphableModel, tmp_path: Path) -> None:
    one = read_fit(sorted((corpus / SUBSET).glob("*.mat"))[0])
    strange = replace(one, shape=one.shape[:-1])
    for name, fit in (("one", one), ("strange", strange)):
        (tmp_path / f"{name}.mat").write_bytes(fit_bytes(fit, "test"))
    with pytest.raises(ConfigurationError, match="holds 1 fit of"):
        read_prior(tmp_path, model)
    with pytest.raises(ConfigurationError, match="is not a folder of fits"):
        read_prior(tmp_path / "none", model)
