import pytest
import torch
import torch.nn.functional as F

from maskweave.modality.tokenizer import Quantizer
from maskweave.tokenizers.quantizers import build_quantizer
from maskweave.tokenizers.quantizers.base import count_ids, straight_through
from maskweave.tokenizers.quantizers.fsq import FSQ
from maskweave.tokenizers.quantizers.lfq import LFQ
from maskweave.tokenizers.quantizers.memcodes import Memcodes
from maskweave.tokenizers.quantizers.residual import Residual, ResidualFSQ, ResidualVQ
from maskweave.tokenizers.quantizers.rotation import rotated
from maskweave.tokenizers.quantizers.simvq import SimVQ
from maskweave.tokenizers.quantizers.vq import VQ

SPECS = [
    Quantizer(type="fsq", levels=(8, 5, 4)),
    Quantizer(type="vq", codes=64, dim=8),
    Quantizer(type="lfq", codes=256),
    Quantizer(type="memcodes", codes=32, dim=12, heads=3),
    Quantizer(type="vq", codes=64, dim=8, rotation=True),
    Quantizer(type="vq", codes=64, dim=8, codebook="simvq"),
    Quantizer(type="vq", codes=64, dim=8, codebook="simvq", rotation=True),
    Quantizer(type="residual", codes=16, dim=8, depth=3),
    Quantizer(type="residual", over="fsq", levels=(5, 3), depth=2),
]
each = pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.type}-{spec.codebook}-{spec.rotation}-{spec.over}"
)


def latents(dim, samples=6, seed=0):
    return torch.randn(samples, 20, dim, generator=torch.Generator().manual_seed(seed))


@each
def test_ids_decode_to_the_codes(spec):
    quantizer = build_quantizer(spec).eval()
    out = quantizer(latents(spec.latent_dim))
    assert quantizer.size == spec.size
    assert out.ids.dtype == torch.long and out.ids.min() >= 0 and out.ids.max() < spec.size
    assert out.ids.shape == ((6, 20, 3) if spec.type == "memcodes" else (6, 20))
    assert out.z_q.shape == (6, 20, spec.latent_dim) and out.loss.shape == ()
    torch.testing.assert_close(quantizer.decode(out.ids), out.z_q, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("spec", "length"),
    [
        (Quantizer(type="vq", codes=256, dim=8), 1.0),
        (Quantizer(type="vq", codes=256, dim=8, codebook="simvq"), 1.0),
        (Quantizer(type="lfq", codes=256), 2.8284),  # the root of 8 channels
        (Quantizer(type="fsq", levels=(8, 5, 4)), 1.0),  # the root of 3 channels, each uniform from -1 to 1
        (Quantizer(type="fsq", levels=(255,) * 2), 0.8165),
        (Quantizer(type="residual", codes=256, dim=8, depth=1), 1.0),
    ],
    ids=lambda value: f"{value.type}-{value.codebook}" if isinstance(value, Quantizer) else str(value),
)
def test_the_length_of_codes_is_what_decoders_are_told(spec, length):
    torch.manual_seed(0)
    quantizer = build_quantizer(spec).eval()
    codes = quantizer.decode(torch.randint(quantizer.size, (1, 4000)))
    assert quantizer.code_length == pytest.approx(length, abs=1e-4)
    assert codes.square().sum(-1).mean().sqrt().item() == pytest.approx(length, rel=0.1)


@each
def test_the_commitment_loss_has_its_stated_value(spec):
    """All latents are (2, 2, …), and all learned codes 0, so a difference is 2 in each channel; VQ and each level of ResidualVQ get latents of length 1."""
    quantizer = build_quantizer(spec).train()
    for module in quantizer.modules():
        if isinstance(module, VQ):
            for buffer in (module.codebook, module.sums):
                buffer.zero_()
            module.initialized.fill_(True)
        elif isinstance(module, SimVQ):
            module.frozen.zero_()
        elif isinstance(module, LFQ):
            module.entropy = 0.0
    expected = {
        VQ: 0.25 * 1,  # summed over the channels
        ResidualVQ: 3 * 0.25 * 1,
        SimVQ: (1 + 0.25) * 4,  # mean over the channels
        LFQ: 0.25 * 1,  # mean over the channels, of the difference to codes of 1
        FSQ: 0.0,
        ResidualFSQ: 0.0,
        Memcodes: 0.0,
    }
    if type(quantizer) not in expected:
        pytest.skip("a quantizer that was added states its value in a test of its own")
    loss = quantizer(torch.full((2, 3, spec.latent_dim), 2.0)).loss
    assert float(loss.detach()) == pytest.approx(expected[type(quantizer)], rel=1e-5)


@each
def test_gradient_reaches_the_latents(spec):
    torch.manual_seed(0)
    z = latents(spec.latent_dim).requires_grad_()
    out = build_quantizer(spec).train()(z)
    (out.z_q.square().sum() + out.loss).backward()
    assert z.grad is not None and (z.grad.abs().sum(-1) > 0).float().mean() > 0.9


@each
def test_same_codes_under_autocast(spec):
    quantizer = build_quantizer(spec).eval()
    z = latents(spec.latent_dim)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(z).ids, quantizer(z.clone()).ids) and quantizer(z).z_q.dtype == torch.float32
        inside = quantizer(z).ids
    assert torch.equal(inside, quantizer(z).ids)


@each
def test_saved_state_and_random_state_resume_exactly(spec):
    torch.manual_seed(3)
    first = build_quantizer(spec).train()
    first(latents(spec.latent_dim))
    state, chance = {k: v.clone() for k, v in first.state_dict().items()}, torch.get_rng_state()
    expected = first(latents(spec.latent_dim, seed=1))
    second = build_quantizer(spec).train()
    second.load_state_dict(state)
    torch.set_rng_state(chance)
    found = second(latents(spec.latent_dim, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (7,)])
def test_fsq_agrees_with_the_oracle(levels):
    from vector_quantize_pytorch import FSQ as Oracle

    z = latents(len(levels)) * 2
    codes, ids = Oracle(list(levels))(z)
    ours = FSQ(levels)(z)
    assert torch.equal(ours.ids, ids.long())
    torch.testing.assert_close(ours.z_q, codes)


@pytest.mark.parametrize("levels", [(4, 3), (2, 5), (2, 2)])
def test_fsq_reaches_every_code(levels):
    quantizer = FSQ(levels)
    grid = torch.cartesian_prod(torch.linspace(-8, 8, 50), torch.linspace(-8, 8, 50))[None]
    assert sorted(quantizer(grid).ids.unique().tolist()) == list(range(quantizer.size))


def test_lfq_agrees_with_the_oracle():
    from vector_quantize_pytorch import LFQ as Oracle

    z = latents(8)
    oracle = Oracle(dim=8, codebook_size=256, entropy_loss_weight=0.1, commitment_loss_weight=0.25).train()
    expected = oracle(z, inv_temperature=1.0)
    ours = LFQ(256).train()(z)
    assert torch.equal(ours.ids, expected.indices)
    torch.testing.assert_close(ours.z_q, expected.quantized)
    torch.testing.assert_close(ours.loss, expected.entropy_aux_loss, atol=1e-5, rtol=1e-4)


def test_lfq_entropy_prefers_decided_latents_and_even_use():
    quantizer = LFQ(2**12)  # more bits than one group
    decided_even = torch.where(latents(12, 50) > 0, 4.0, -4.0)
    decided_same, undecided = torch.full((50, 20, 12), 4.0), latents(12, 50) * 1e-3
    best, same, unsure = (quantizer.entropy_loss(z) for z in (decided_even, decided_same, undecided))
    assert best < -5 and abs(same) < 1e-2 and abs(unsure) < 1e-2


def test_vq_agrees_with_the_oracle():
    from vector_quantize_pytorch import VectorQuantize

    ours = VQ(64, 8).eval()
    oracle = VectorQuantize(dim=8, codebook_size=64, use_cosine_sim=True).eval()
    oracle._codebook.embed.copy_(ours.codebook[None])
    z = latents(8)
    codes, ids, _ = oracle(z)
    assert torch.equal(ours(z).ids, ids)
    torch.testing.assert_close(ours(z).z_q, codes)


def test_vq_starts_from_k_means_once():
    torch.manual_seed(0)
    centers = F.normalize(torch.randn(8, 16), dim=-1)
    z = (centers.repeat_interleave(40, 0) + 0.02 * torch.randn(320, 16))[None]
    quantizer = VQ(8, 16).train()
    assert not quantizer.initialized
    error = (F.normalize(z, dim=-1) - quantizer(z).z_q).square().sum(-1).mean()
    assert quantizer.initialized and error < 0.25  # random codes would be about 1 away; k-means may merge a pair
    before = quantizer.codebook.clone()
    quantizer.eval()(z)
    assert torch.equal(before, quantizer.codebook)  # evaluation changes nothing
    assert (before * quantizer.train()(z).z_q[0, :8]).sum() > 0


def test_vq_codes_follow_their_latents():
    torch.manual_seed(0)
    quantizer = VQ(2, 2).train()
    angle = torch.tensor([0.1, 0.2, 0.3, 2.0, 2.1, 2.2])
    z = torch.stack([angle.cos(), angle.sin()], -1)[None]
    for _ in range(300):
        out = quantizer(z)
    means = F.normalize(torch.stack([z[0, :3].mean(0), z[0, 3:].mean(0)]), dim=-1)
    torch.testing.assert_close(quantizer.codebook[out.ids[0, [0, 3]]], means, atol=1e-3, rtol=0)


def test_vq_replaces_dead_codes():
    torch.manual_seed(0)
    quantizer = VQ(64, 8).train()
    narrow = latents(8) * 0.05 + torch.ones(8)
    quantizer(narrow)
    far = -torch.ones(8)
    quantizer.codebook[:32] = F.normalize(far + 0.01 * torch.randn(32, 8), dim=-1)
    quantizer.sums.copy_(quantizer.codebook)
    assert quantizer(narrow).ids.unique().numel() <= 32
    for _ in range(300):
        quantizer(narrow)
    assert (quantizer.codebook @ F.normalize(torch.ones(8), dim=0) > 0.5).all()
    assert quantizer.eval()(narrow).ids.unique().numel() > 40


def oracles_vq(codes, dim, **settings):
    """An oracle with a codebook of random unit vectors, and that codebook."""
    from vector_quantize_pytorch import VectorQuantize

    codebook = F.normalize(torch.randn(codes, dim, generator=torch.Generator().manual_seed(5)), dim=-1)
    oracle = VectorQuantize(dim=dim, codebook_size=codes, **settings)
    oracle._codebook.embed.copy_(codebook[None])
    return oracle, codebook


def test_the_rotation_trick_agrees_with_the_oracle():
    from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

    z, codes, weights = latents(8, seed=1), latents(8, seed=2), latents(8, seed=3)
    gradients = []
    for rotate in (rotated, rotate_to):
        given = z.clone().requires_grad_()
        out = rotate(given, codes)
        torch.testing.assert_close(out, codes, atol=1e-5, rtol=1e-4)
        (out * weights).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    straight = z.clone().requires_grad_()
    (straight_through(straight, codes) * weights).sum().backward()
    assert not torch.allclose(gradients[0], straight.grad, atol=1e-2)


def test_rotation_changes_gradients_only():
    torch.manual_seed(0)
    plain, turned = VQ(64, 8), VQ(64, 8, rotation=True)
    turned.load_state_dict(plain.state_dict())
    gradients = []
    for quantizer in (plain, turned):
        z = latents(8).requires_grad_()
        torch.manual_seed(1)
        out = quantizer.train()(z)
        (out.z_q * latents(8, seed=4)).sum().backward()
        gradients.append((z.grad, out))
    (a, first), (b, second) = gradients
    assert torch.equal(first.ids, second.ids) and torch.equal(first.loss, second.loss)
    torch.testing.assert_close(first.z_q, second.z_q)
    assert not torch.allclose(a, b, atol=1e-3)


def test_rotation_of_opposite_and_empty_vectors_is_finite():
    z = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).requires_grad_()
    rotated(z, torch.tensor([[[-1.0, 0.0], [1.0, 0.0]]])).sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("rotation", [False, True])
def test_simvq_agrees_with_the_oracle(rotation):
    from vector_quantize_pytorch import SimVQ as Oracle

    oracle = Oracle(dim=8, codebook_size=64, rotation_trick=rotation).train()
    ours = SimVQ(64, 8, rotation).train()
    ours.frozen.copy_(oracle.frozen_codebook)
    ours.transform.data.copy_(oracle.code_transform.weight)
    results = []
    for quantizer, weight in ((ours, ours.transform), (oracle, oracle.code_transform.weight)):
        z = latents(8).requires_grad_()
        codes, ids, loss = quantizer(z)
        ((codes * latents(8, seed=3)).sum() + loss).backward()
        results.append((codes, ids, loss, z.grad, weight.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_simvq_moves_all_codes():
    torch.manual_seed(0)
    quantizer = SimVQ(64, 8).train()
    rate = torch.optim.Adam(quantizer.parameters(), 3e-2)
    narrow, before = latents(8) * 0.1 + torch.ones(8), quantizer.decode(torch.arange(64)).detach()
    losses = []
    for _ in range(60):
        loss = quantizer(narrow).loss
        rate.zero_grad()
        loss.backward()
        rate.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert ((quantizer.decode(torch.arange(64)) - before).norm(dim=-1) > 1e-3).all(), (
        "also those that no latent is near"
    )


def test_euclidean_codes_agree_with_the_oracle():
    oracle, codebook = oracles_vq(64, 8)
    ours = VQ(64, 8, cosine=False).eval()
    ours.codebook.copy_(codebook)
    codes, ids, _ = oracle.eval()(latents(8))
    assert torch.equal(ours(latents(8)).ids, ids)
    torch.testing.assert_close(ours(latents(8)).z_q, codes)


def test_euclidean_codes_are_the_means_of_their_latents():
    torch.manual_seed(0)
    centers = 3 * torch.randn(4, 6)
    z = (centers.repeat_interleave(30, 0) + 0.01 * torch.randn(120, 6))[None]
    quantizer = VQ(4, 6, cosine=False).train()
    for _ in range(200):
        out = quantizer(z)
    used = out.ids.unique().tolist()
    means = torch.stack([z[out.ids == code].mean(0) for code in used])
    assert len(used) > 1
    torch.testing.assert_close(quantizer.codebook[used], means, atol=1e-2, rtol=0)


def test_residual_vq_agrees_with_the_oracle():
    from vector_quantize_pytorch import ResidualVQ as Oracle

    oracle, ours = Oracle(dim=8, codebook_size=16, num_quantizers=3).eval(), ResidualVQ(16, 8, 3).eval()
    for level, theirs in zip(ours.levels, oracle.layers, strict=True):
        theirs._codebook.embed.copy_(level.codebook[None] * 0.5)
        level.codebook.mul_(0.5)
    z = F.normalize(latents(8), dim=-1)
    codes, ids, _ = oracle(z)
    out = ours(z)
    assert torch.equal(ours.split(out.ids), ids)
    torch.testing.assert_close(out.z_q, codes)


@pytest.mark.parametrize("levels", [(5, 3), (4, 4, 4), (8, 5, 2)])
def test_residual_fsq_agrees_with_the_oracle(levels):
    from vector_quantize_pytorch import ResidualFSQ as Oracle

    oracle, ours = Oracle(levels=list(levels), num_quantizers=2), ResidualFSQ(levels, 2)
    z = latents(len(levels))
    codes, ids = oracle(z)
    out = ours(z)
    assert torch.equal(ours.split(out.ids), ids.long())
    torch.testing.assert_close(out.z_q, codes)


@pytest.mark.parametrize("over", ["vq", "fsq"])
def test_each_level_makes_the_error_smaller(over):
    errors = []
    for depth in (1, 2, 3):
        torch.manual_seed(0)
        spec = Quantizer(type="residual", over=over, codes=16, dim=4, levels=(3, 3, 3, 3), depth=depth)
        quantizer, z = build_quantizer(spec).train(), latents(4, 40)
        for _ in range(30):
            z_q = quantizer(z).z_q
        whole = F.normalize(z, dim=-1) if over == "vq" else quantizer.bound(z)
        errors.append(float((z_q - whole).square().mean()))
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1]


def test_levels_in_ids():
    quantizer = Residual(10, 3)
    digits = torch.tensor([[[1, 2, 3], [9, 0, 9]]])
    ids = quantizer.joined(digits)
    assert ids.tolist() == [[123, 909]] and torch.equal(quantizer.split(ids), digits)
    assert quantizer.entries_of(ids).tolist() == [[[1, 12, 23], [9, 10, 29]]] and quantizer.entries == 30


def test_memcodes_learns_to_keep_its_latents_apart():
    torch.manual_seed(0)
    quantizer = Memcodes(16, 8, heads=2).train()
    rate = torch.optim.Adam(quantizer.parameters(), 3e-2)
    z = latents(8, 4)
    losses = []
    for _ in range(150):
        loss = F.mse_loss(quantizer(z).z_q, z)
        rate.zero_grad()
        loss.backward()
        rate.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_counts_are_those_of_bincount() -> None:
    ids = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(count_ids(ids, 9), torch.bincount(ids.flatten(), minlength=9))
    assert torch.equal(count_ids(ids, 9, ids < 5), torch.bincount(ids[ids < 5], minlength=9))
