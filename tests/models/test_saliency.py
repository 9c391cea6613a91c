import pytest
import torch

from gascnn.models.saliency import LocalClassifier, SaliencyAttack


def classifier_and_images(channels=1, classes=4, size=12, images=5, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return LocalClassifier(channels, classes, size, width=3).to(dtype), torch.rand(
        images, channels, size, size, dtype=dtype
    )


def autograd_derivatives(classifier, images):
    """(n, classes, C, H, W) derivatives of every softmax probability, by autograd, and the predictions."""
    images = images.clone().requires_grad_()
    probabilities = torch.softmax(classifier(images), 1)
    rows = [
        torch.autograd.grad(probabilities[:, k].sum(), images, retain_graph=True)[0]
        for k in range(probabilities.shape[1])
    ]
    return torch.stack(rows, 1), probabilities.argmax(1)


def equation_1(classifier, images):
    """Map' as the paper prints it, conditions inverted, from autograd's derivatives and both sums."""
    derivatives, predicted = autograd_derivatives(classifier, images)
    maps = torch.zeros_like(images)
    for i, y in enumerate(predicted.tolist()):
        d = derivatives[i, y]
        s = sum(derivatives[i, k] for k in range(derivatives.shape[1]) if k != y)
        maps[i] = torch.where((d < 0) & (s > 0), -d * s, torch.zeros_like(d))
    return maps


@pytest.mark.parametrize(("channels", "classes", "size"), [(1, 2, 8), (3, 5, 9), (1, 10, 28), (3, 3, 26), (1, 3, 65)])
def test_gradient_written_forward_is_autograds(channels, classes, size):
    classifier, images = classifier_and_images(channels, classes, size)
    derivatives, predicted = autograd_derivatives(classifier, images)
    expected = derivatives[torch.arange(len(images)), predicted]
    u, spread = SaliencyAttack(classifier).log_odds_derivative(images)
    torch.testing.assert_close(u * spread[:, None, None, None], expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 1e-6


def test_pull_back_is_autograds_for_any_direction():
    classifier, images = classifier_and_images(3, 4, 11)
    direction = torch.randn(len(images), 4, dtype=images.dtype)
    leaf = images.clone().requires_grad_()
    (classifier(leaf) * direction).sum().backward()
    torch.testing.assert_close(classifier.pull_back(classifier.activations(images), direction), leaf.grad)


def test_literal_form_is_equation_1():
    classifier, images = classifier_and_images(3, 4, 10)
    attacked, added = SaliencyAttack(classifier)(images)
    torch.testing.assert_close(added, equation_1(classifier, images), rtol=1e-8, atol=1e-15)
    torch.testing.assert_close(attacked, images + added)
    assert added.max() > 0


def test_literal_form_is_far_below_a_grey_level_where_the_classifier_is_sure():
    classifier, images = classifier_and_images(dtype=torch.float32)
    with torch.no_grad():
        classifier.fc.bias[2] += 50
    attacked, _ = SaliencyAttack(classifier)(images)
    assert torch.equal((attacked * 255).round(), (images * 255).round())
    # The strong form ranks by log odds, which do not vanish with the softmax.
    strong, _ = SaliencyAttack(classifier, pixels=5)(images)
    assert bool(((strong - images).flatten(1) > 0).sum(1).eq(5).all())


def test_pixels_moves_the_most_salient_ones():
    classifier, images = classifier_and_images(1, 4, 10)
    saliency = equation_1(classifier, images).flatten(1)
    attacked, added = SaliencyAttack(classifier, pixels=4, amount=0.25)(images)
    for i in range(len(images)):
        best = saliency[i].argsort(descending=True)[:4]
        expected = torch.zeros(100, dtype=images.dtype)
        expected[best] = torch.minimum(torch.full((4,), 0.25, dtype=images.dtype), 1 - images[i].flatten()[best])
        torch.testing.assert_close(added[i].flatten(), expected)
    torch.testing.assert_close(attacked, images + added)


def test_pixels_of_a_colour_image_are_places():
    classifier, images = classifier_and_images(3, 4, 10)
    conditions = equation_1(classifier, images) > 0
    best = equation_1(classifier, images).sum(1).flatten(1).argmax(1)
    _, added = SaliencyAttack(classifier, pixels=1)(images)
    assert torch.equal((added > 0).any(1).flatten(1).nonzero()[:, 1], best)
    assert bool((conditions | (added == 0)).all())


def test_bound_scales_equation_1_to_its_largest_change():
    classifier, images = classifier_and_images(3, 4, 10)
    images = images * 0.5
    literal = equation_1(classifier, images)
    _, added = SaliencyAttack(classifier, bound=0.2)(images)
    torch.testing.assert_close(added, literal * (0.2 / literal.amax((1, 2, 3), keepdim=True)), rtol=1e-8, atol=1e-12)
    assert torch.allclose(added.amax((1, 2, 3)), torch.tensor(0.2, dtype=images.dtype))


@pytest.mark.parametrize("strength", [{"pixels": 30}, {"bound": 1.0}, {"pixels": 3, "amount": 0.7}])
def test_a_pixel_never_passes_white_and_a_white_one_is_no_candidate(strength):
    classifier, images = classifier_and_images(1, 4, 10, images=8, dtype=torch.float32)
    images[:, :, ::2] = 1
    attacked, added = SaliencyAttack(classifier, **strength)(images)
    assert bool((attacked <= 1 + 1e-6).all())
    assert bool((added >= 0).all())
    assert bool((added[:, :, ::2] == 0).all())
    assert bool((added.flatten(1) > 0).any(1).all())


def test_attack_lowers_the_predicted_probability():
    classifier, images = classifier_and_images(1, 4, 12, images=32)
    before = torch.softmax(classifier(images), 1)
    predicted = before.argmax(1, keepdim=True)
    for strength in ({}, {"bound": 0.05}, {"pixels": 5, "amount": 0.1}):
        attacked, _ = SaliencyAttack(classifier, **strength)(images)
        after = torch.softmax(classifier(attacked), 1)
        assert bool((after.gather(1, predicted) < before.gather(1, predicted)).all())


def test_an_image_with_no_place_to_attack_comes_out_as_it_is():
    classifier, images = classifier_and_images(1, 4, 10)
    for strength in ({"bound": 0.5}, {"pixels": 5}):
        attacked, added = SaliencyAttack(classifier, **strength)(torch.ones_like(images))
        assert torch.equal(attacked, torch.ones_like(images))
        assert not added.any()
    with torch.no_grad():
        classifier.fc.weight.zero_()
    for strength in ({}, {"bound": 0.5}, {"pixels": 5}):
        assert torch.equal(SaliencyAttack(classifier, **strength)(images)[0], images)


def test_no_autograd_is_needed_and_an_image_does_not_depend_on_its_batch():
    classifier, images = classifier_and_images(1, 4, 10, dtype=torch.float32)
    attack = SaliencyAttack(classifier, pixels=5)
    with torch.inference_mode():
        attacked, _ = attack(images)
        alone = torch.cat([attack(image[None])[0] for image in images])
    torch.testing.assert_close(attacked, alone)
    assert not any(p.requires_grad for p in attack.parameters())


def test_the_exported_graph_has_plain_operators_and_a_free_batch():
    """What torch.export traces, the way to ONNX: no autograd, no operator beyond those that ONNX has since opset 17."""
    classifier, images = classifier_and_images(1, 4, 10, dtype=torch.float32)
    # fmt: off
    known = {
        "_assert_tensor_metadata", "add", "amax", "arange", "argmax", "bitwise_and", "clamp", "conv2d",
        "conv_transpose2d", "div", "eq", "flatten", "full_like", "gt", "lift_fresh_copy", "linear", "matmul",
        "minimum", "mul", "neg", "ones_like", "pow", "relu", "reshape", "rsub", "scatter", "softmax", "square",
        "sub", "sum", "sym_size", "t", "to", "topk", "unflatten", "unsqueeze", "view", "where", "zeros_like",
    }
    # fmt: on
    for strength in ({}, {"pixels": 5}, {"bound": 0.3}):
        attack = SaliencyAttack(classifier, **strength).eval()
        program = torch.export.export(attack, (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
        names = {str(node.target).split(".")[1] for node in program.graph.nodes if str(node.target).startswith("aten.")}
        assert names <= known, names - known
        more = torch.rand(9, 1, 10, 10)
        torch.testing.assert_close(program.module()(more), attack(more))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 2}, r"in_channels is 2; allowed: 1 \(gray\) or 3"),
        ({"classes": 1}, "classes is 1; allowed: whole numbers from 2"),
        ({"image_size": 3}, "image_size is 3; allowed: whole numbers from 4 to 1024"),
        ({"width": 0}, "width is 0; allowed: whole numbers from 1"),
    ],
)
def test_classifier_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalClassifier(**({"in_channels": 1, "classes": 3, "image_size": 8} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixels": 3, "bound": 0.1}, "pixels is 3 and bound 0.1; give one of them"),
        ({"pixels": 101}, "pixels is 101; allowed: whole numbers from 1 to 100"),
        ({"pixels": 0}, "pixels is 0; allowed"),
        ({"pixels": 3, "amount": 0}, "amount is 0; allowed: above 0 to 1"),
        ({"bound": 1.5}, "bound is 1.5; allowed: above 0 to 1"),
        ({"bound": float("nan")}, "bound is nan; allowed: above 0 to 1"),
    ],
)
def test_strength_is_checked(arguments, message):
    classifier, _ = classifier_and_images(1, 4, 10)
    with pytest.raises(ValueError, match=message):
        SaliencyAttack(classifier, **arguments)


def test_arguments_build_the_classifier_again():
    classifier, images = classifier_and_images(3, 4, 20)
    again = LocalClassifier(**classifier.arguments).double()
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(images), classifier(images))
    # Two convolutions at least, then halved until 8 pixels are left: 256 -> 8 takes five.
    assert [len(LocalClassifier(1, 2, size).convs) for size in (8, 28, 33, 256)] == [2, 2, 3, 5]
