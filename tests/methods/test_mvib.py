"""MVIB's loss against torch's distributions, and its network against the code of the run that MVEB's paper quotes."""

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from infomax.data.loading.workers import Batch
from infomax.methods.mvib import gaussian_kl, mvib_loss
from infomax.methods.simclr import nt_xent_loss
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.training.engine import Engine
from losses_of_methods import LOSSES, each
from tiny import progress, tiny_method, tiny_views


def gaussian(mean, log_variance):
    return Independent(Normal(mean, log_variance.exp().sqrt()), 1)


def leaves(name, **options):
    return each(LOSSES[name].make(**options), lambda x: x.clone().requires_grad_())


def gradients(loss, arguments):
    return torch.autograd.grad(loss, list(arguments.values()))


def test_the_divergence_is_that_of_torch_with_its_gradient():
    arguments = leaves("gaussian-kl")
    m1, v1, m2, v2 = arguments.values()
    expected = kl_divergence(gaussian(m1, v1), gaussian(m2, v2)).mean()
    loss = gaussian_kl(**arguments)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, arguments), gradients(expected, arguments))


def test_the_divergence_of_nearly_equal_variances_keeps_its_digits():
    """To second order it is a quarter of the squared difference of the log-variances."""
    mean, log_variance = torch.zeros(1, 1), torch.full((1, 1), 1e-4)
    assert gaussian_kl(mean, log_variance, mean, 0 * mean).item() == pytest.approx(2.5e-9, rel=1e-3)


def test_equal_gaussians_have_no_divergence_at_any_variance():
    mean, log_variance = torch.ones(2, 3, requires_grad=True), torch.full((2, 3), -100.0)  # a variance of 4e-44
    loss = gaussian_kl(mean, log_variance, mean.detach(), log_variance)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, mean)[0].eq(0).all()
    smallest = torch.full((2, 3), -400.0)  # a variance that has no inverse in float32
    loss = gaussian_kl(mean, smallest, mean.detach(), smallest)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, mean)[0].eq(0).all()


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 0.5), (0.3, 0.1)])
def test_the_loss_is_the_contrast_of_samples_and_the_mean_of_both_divergences(weight, temperature):
    arguments = leaves("mvib", rows=5)
    m1, v1, m2, v2, noise1, noise2 = arguments.values()
    first, second = gaussian(m1, v1), gaussian(m2, v2)
    divergence = (kl_divergence(first, second) + kl_divergence(second, first)).mean() / 2
    samples = m1 + first.stddev * noise1, m2 + second.stddev * noise2
    expected = weight * divergence + nt_xent_loss(*samples, temperature=temperature)
    loss = mvib_loss(**arguments, weight=weight, temperature=temperature)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, arguments), gradients(expected, arguments))


def test_the_quoted_run_has_the_squared_difference_of_features_with_its_weight():
    """With a deviation of 0.1, the recipe's weight is that of 5e-4 times the mean squared difference of features."""
    settings = get_recipe("mvib", "cifar10").method
    m1, m2 = torch.randn(2, 7, 512, dtype=torch.float64)
    log_variance = torch.full_like(m1, 0.01).log()
    expected = 5e-4 * torch.nn.functional.mse_loss(m1, m2)
    torch.testing.assert_close(settings.weight * gaussian_kl(m1, log_variance, m2, log_variance), expected)
    assert settings.deviation == 0.1


def parts(method, images, generator_seed):
    """Returns projection, mean and log-variance of images, step by step."""
    mean = method.encoder(images)
    log_variance = mean.new_full(mean.shape, 0.01).log() if method.deviation else method.log_variance(mean)
    torch.manual_seed(generator_seed)
    sample = mean + log_variance.exp().sqrt() * torch.randn(mean.shape, dtype=mean.dtype)
    return method.projector(sample), mean, log_variance


@pytest.mark.parametrize("name", ["mvib", "mvib-fixed"])
def test_noise_is_added_to_the_features_before_the_projector_and_in_training_alone(name):
    method, views = tiny_method(name), tiny_views()
    image = views.global_crops[0]
    torch.manual_seed(5)
    (actual,) = method.forward_each(method._embed, [image])
    torch.testing.assert_close(actual, torch.cat(parts(method, image, 5), dim=1))
    method.eval()
    projection, mean, _ = method.online(views)[0].split([8, 24, 24], dim=1)
    torch.testing.assert_close(projection, method.projector(mean))


@pytest.mark.parametrize("name", ["mvib", "mvib-fixed"])
@pytest.mark.parametrize(("global_crops", "local_crops"), [(2, 0), (2, 1), (3, 0)])
def test_the_method_averages_over_pairs_of_views_with_a_global_crop(name, global_crops, local_crops):
    method = tiny_method(name)
    method.global_crop_count = global_crops
    online = method.online(tiny_views(global_crops=global_crops, local_crops=local_crops))
    outputs = [z.split([8, 24, 24], dim=1) for z in online]
    pairs = [(0, 1)] if len(online) == 2 else [(0, 1), (0, 2), (1, 2)]
    contrast = sum(nt_xent_loss(outputs[i][0], outputs[j][0], temperature=0.5) for i, j in pairs) / len(pairs)
    divergences = [gaussian_kl(*outputs[i][1:], *outputs[j][1:]) for i, j in pairs]
    divergences += [gaussian_kl(*outputs[j][1:], *outputs[i][1:]) for i, j in pairs]
    loss = method.loss(online, [], progress(0))
    torch.testing.assert_close(loss.total, contrast + 1e-3 * sum(divergences) / len(divergences))
    torch.testing.assert_close(loss.terms["contrast"], contrast)


def test_a_microbatch_that_passes_again_has_the_same_noise():
    """The gradient is that of one graph through both microbatches, each with the noise of its first pass."""
    plan = customise(get_recipe("mvib", "digits"), overrides=["method.deviation=1"], batch_size=8, micro_batch_size=4)
    engine = Engine(plan, steps_per_epoch=2, device=torch.device("cpu"))
    torch.manual_seed(0)
    views = [[torch.randn(4, 3, 12, 12) for _ in range(2)] for _ in range(2)]
    batches = [Batch(torch.empty(0), 0, np.arange(4), {}, views=crops) for crops in views]
    loss = engine.backward(batches)
    actual = [p.grad.clone() for p in engine.method.parameters()]
    outputs = []
    for number, batch in enumerate(batches):
        with engine._forward_mode(number):
            outputs.append(engine.method.online(engine.views(batch)))
    expected = engine.method.loss([torch.cat(view) for view in zip(*outputs, strict=True)], [], engine.progress(0))
    torch.testing.assert_close(loss.total, expected.total)
    gradient = torch.autograd.grad(expected.total, list(engine.method.parameters()))
    torch.testing.assert_close(actual, list(gradient), rtol=1e-4, atol=1e-6)
