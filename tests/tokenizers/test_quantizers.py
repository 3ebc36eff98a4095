import pytest
import torch
import torch.nn.functional as F

from maskweave.modality.tokenizer import Quantizer
from maskweave.tokenizers.quantizers import build_quantizer
from maskweave.tokenizers.quantizers.fsq import FSQ
from maskweave.tokenizers.quantizers.lfq import LFQ
from maskweave.tokenizers.quantizers.memcodes import Memcodes
from maskweave.tokenizers.quantizers.vq import VQ

SPECS = [
    Quantizer(type="fsq", levels=(8, 5, 4)),
    Quantizer(type="vq", codes=64, dim=8),
    Quantizer(type="lfq", codes=256),
    Quantizer(type="memcodes", codes=32, dim=12, heads=3),
]
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)


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
