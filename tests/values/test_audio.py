"""Sounds: what may be passed as one, rates and lengths, spectrograms there and back, scores and figures."""

import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from format_helpers import lacking

from maskweave.data.parts import noting, read_part
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import catalog_from
from maskweave.values import log_mel
from maskweave.values.audio import Audio
from maskweave.values.log_mel import LogMel
from maskweave.values.sound import Sound
from maskweave.values.variation import Variation

RATE = 16_000
AUDIO = Audio(rate=RATE, max_seconds=1.024)
RNG = np.random.default_rng(0)


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(array: np.ndarray, rate: int = RATE, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, array, rate, subtype=subtype, format=kind)
    return buffer.getvalue()


def pitch(waveform: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


def remarks_of(read: Any) -> tuple[Any, list[str]]:
    with noting("part") as notes:
        value = read_part("speech", read)
    assert not notes.dropped
    return value, [text for _, text in notes.remarks]


# What may be passed, and rates.


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_a_tone_keeps_its_pitch_and_duration_at_any_rate(rate: int) -> None:
    sound, told = remarks_of(lambda: AUDIO.read(wav(tone(rate=rate), rate), "wav", "x"))
    assert pitch(sound.waveform) == pytest.approx(440, abs=2) and sound.seconds == pytest.approx(0.5, abs=1e-4)
    assert np.abs(sound.waveform[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)
    assert told == [f"sounds of rate {rate}, resampled to 16000"]


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    high = AUDIO.check((tone(rate=48_000, hertz=12_000), 48_000), "x")
    assert np.abs(high.waveform[500:-500]).max() < 0.01, "12 kHz must not appear as 4 kHz"


def test_a_rate_that_needs_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking("soxr", monkeypatch)
    with pytest.raises(MaskweaveError, match=r"^x: reading this file needs soxr, .*pip install 'maskweave\[av\]'"):
        AUDIO.check((tone(), 8_000), "x")
    assert AUDIO.check(tone(), "x").seconds == 0.5, "the entry's own rate needs no package"


def test_stereo_is_mixed_and_told() -> None:
    both = np.stack([tone(), 0.5 * tone()], -1)
    sound, told = remarks_of(lambda: AUDIO.read(wav(both, subtype="FLOAT"), "wav", "x"))
    assert np.allclose(sound.waveform, 0.75 * tone(), atol=1e-6)
    assert told == ["sounds of several channels, mixed to one"]
    assert np.array_equal(AUDIO.check(both.T, "x").waveform, sound.waveform), "channels may come first"


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_kinds_of_files(kind: str) -> None:
    subtype = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    sound = AUDIO.read(wav(tone(), subtype=subtype, kind=kind.upper()), kind, "x")
    assert sound.seconds == 0.5 and pitch(sound.waveform) == pytest.approx(440, abs=2)


def test_forms_in_python() -> None:
    expected = np.rint(tone() * 2**15) / 2**15
    levels = np.rint(tone() * 2**15)
    for form in (
        expected,
        levels.astype(np.int16),
        (levels * 2**16).astype(np.int32),
        torch.from_numpy(expected),
        (expected, RATE),
        (expected.astype(np.float64), float(RATE)),
        {"path": "a.wav", "array": expected, "sampling_rate": RATE},
        Sound(AUDIO.analysis, expected.astype(np.float32)),
        expected.tolist(),
    ):
        assert np.allclose(AUDIO.check(AUDIO.from_python(form, "x"), "x").waveform, expected, atol=1e-7)
    other = Sound(Audio(rate=8_000, max_seconds=1).analysis, tone(rate=8_000))
    assert pitch(AUDIO.check(other, "x").waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sound", "'sound'; expected a waveform"),
        (np.zeros(0, np.float32), r"\(0,\); expected a waveform"),
        (
            np.zeros((80, 100), np.float32),
            r"shape \(80, 100\); expected a waveform of at most 8 channels; if it is a sp",
        ),
        (np.full(9, 300.0), "amplitude of 300; expected floats from -1 to 1; divide it by"),
        (np.array([0.0, math.nan]), "amplitude of nan; expected floats from -1 to 1; replace"),
        (np.zeros(9, np.int64), "a waveform of int64; expected floats, or uint8, int16 or int32; divide"),
        ((np.zeros(9), 0), "a sound of rate 0; expected 1000 to 768000"),
        ((np.zeros(9), 16_000.5), r"a sound of rate 16000\.5"),
    ],
)
def test_values_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(BadSample, match=f"^x: found .*{message}"):
        AUDIO.check(value, "x")


def test_written_sounds_are_read_again() -> None:
    rough = RNG.uniform(-1, 1, 3000).astype(np.float32)
    for waveform, width in ((np.rint(tone() * 2**15).astype(np.float32) / 2**15, 2), (rough, 4), (1.5 * rough, 4)):
        content, ending = AUDIO.write(AUDIO.check(waveform, "x"))
        assert ending == "wav" and len(content) == 44 + width * len(waveform)
        assert np.array_equal(AUDIO.read(content, ending, "x").waveform, waveform)
        assert soundfile.info(io.BytesIO(content)).samplerate == RATE
    clip = AUDIO.playable(AUDIO.check(rough, "x"))
    assert clip.mime == "audio/wav" and soundfile.info(io.BytesIO(clip.content)).subtype == "PCM_16"


# Lengths.


def test_what_is_past_the_end_is_unknown() -> None:
    x = AUDIO.to_network(AUDIO.check_batch([tone(0.512), tone(1.024)], "speech"))
    assert x.shape == (2, 1, 64, 64) and x.dtype == torch.float32
    unknown = x[0, 0].isnan()
    assert not unknown[:, :32].any() and unknown[:, 32:].all() and not x[1].isnan().any()
    assert float(x[~x.isnan()].min()) == -1 and -1 < float(x[1].max()) <= 1
    sounds = AUDIO.from_network(x)
    assert [s.seconds for s in sounds] == pytest.approx([0.512, 1.024])
    assert AUDIO.known(AUDIO.check(tone(0.512), "x"))[:, 31:33].tolist() == [[True, False]] * 64


def test_predicted_sounds_end_where_their_frames_are_mostly_known() -> None:
    assert AUDIO.predicts_unknown and not Audio(max_seconds=1, missing="nan").predicts_unknown
    decoded = AUDIO.from_network(torch.zeros(3, 1, 64, 64))
    logits = torch.full((3, 1, 64, 64), -2.0)
    logits[0, :, :, :20] = 3
    logits[0, :, :, 5] = -1  # a gap
    logits[0, :, 40:] = -0.5  # bands that are unsure
    logits[1] = 1
    ends = [round(sound.seconds * RATE / 256) for sound in AUDIO.with_unknown(decoded, logits)]
    assert ends == [20, 64, 1], "at least one frame is left"


def test_longer_sounds_are_cut_and_told_or_refused() -> None:
    catalog = catalog_from({"modalities": {"speech": ENTRY}}, "here")
    fitted, told = remarks_of(lambda: fit({"speech": catalog["speech"].value.check(tone(2), "x")}, catalog)["speech"])
    assert fitted.num_samples == 64 * 256 and told == ["sounds longer than 1.024 s, cut at their end"]
    refusing = Audio(max_seconds=1.024, fit="refuse")
    with pytest.raises(
        BadSample, match=r"^x: found a sound of 2 s; expected at most 1\.024 s; raise value\.max_seconds"
    ):
        refusing.fit_sizes(refusing.check(tone(2), "x"), "x")
    with pytest.raises(BadSample, match=r"speech: value 3 of the batch: found a sound of 2 s"):
        AUDIO.check_batch([tone(2)], "speech", first=3)


def test_variations_leave_something_of_a_sound() -> None:
    sound = AUDIO.check(tone(0.512), "x")
    assert AUDIO.vary(sound, Variation(shift=-1.0)).num_samples == 256
    assert AUDIO.vary(sound, Variation(shift=1.0)).num_samples == 64 * 256
    noisy = AUDIO.vary(sound, Variation(noise=0.1, seed=(3,)))
    change = (noisy.log_mel - sound.log_mel)[(sound.log_mel > -60) & (sound.log_mel < -20)]
    assert change.std() == pytest.approx(0.1 * 40, rel=0.2), "a network's input of 2 is 80 dB"
    assert AUDIO.vary(sound, Variation()) is sound


ENTRY = {"id": 1, "kind": "grid", "grid": [4, 16], "value": {"type": "audio", "rate": RATE, "max_seconds": 1.024}}


def test_sounds_stand_beside_cropped_pictures_of_one_view() -> None:
    picture = {"id": 2, "kind": "patches", "grid": [2, 2], "value": {"type": "image", "size": [8, 8], "channels": 3}}
    catalog = catalog_from({"modalities": {"speech": ENTRY, "rgb": picture}}, "here")
    sample = {"speech": AUDIO.check(tone(), "x"), "rgb": np.zeros((8, 16, 3), np.uint8)}
    fitted = fit(sample, catalog)
    assert fitted["rgb"].shape == (8, 8, 3) and fitted["speech"].seconds == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "value.max_seconds must be above 0, .* found 0"),
        ({"max_seconds": 1e9}, "value.max_seconds .* at most 64,000,000 points"),
        ({"max_seconds": 1, "hop": 512}, "value.hop must be 1 to a quarter of value.window"),
        (
            {"max_seconds": 1, "mels": 128, "hop": 100, "window": 400},
            r"128 filters are too many for value.window 400: \d+ of them",
        ),
        ({"max_seconds": 1, "mels": 0}, "value.mels must be 1 to 512, found 0"),
        ({"max_seconds": 1, "rate": 10}, "value.rate must be 1,000 to 768,000"),
        ({"max_seconds": 1, "range": (0.0, -80.0)}, "value.range must be"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        Audio(**settings).check_settings("grid")


# Spectrograms.


def test_levels_are_those_of_a_sine_wave() -> None:
    centers = log_mel.hertz(np.linspace(0, log_mel.mel(np.array(8000.0)), 66))[1:-1]
    levels = LogMel(RATE, 64, 256, 1024, -80, 10).analyze(tone(1, hertz=centers[40], amplitude=1))
    assert levels.shape == (64, 63) and levels[:, 30].argmax() == 40
    assert levels[40, 30] == pytest.approx(0, abs=2), "the window spreads a tone over three frequencies"
    quieter = LogMel(RATE, 64, 256, 1024, -80, 10).analyze(tone(1, hertz=centers[40], amplitude=0.1))
    assert quieter[40, 30] == pytest.approx(levels[40, 30] - 20, abs=0.01)


def test_mel_is_that_of_the_htk_book() -> None:
    assert log_mel.mel(np.array(700.0)) == pytest.approx(2595 * math.log10(2))
    assert log_mel.hertz(log_mel.mel(np.array([0.0, 440.0]))) == pytest.approx([0, 440])


def test_a_waveform_from_a_spectrogram_has_that_spectrogram() -> None:
    chirp = 0.5 * np.sin(2 * np.pi * (300 * np.arange(8192) / RATE + 1500 * (np.arange(8192) / RATE) ** 2))
    sound = AUDIO.check(chirp.astype(np.float32), "x")
    made = Sound(AUDIO.analysis, log_mel=sound.log_mel)
    assert made.waveform.shape == (8192,) and made.waveform.dtype == np.float32
    error = np.abs(AUDIO.analysis.analyze(made.waveform) - sound.log_mel).mean()
    assert error < 4, f"found {error:.2f} dB"
    assert np.array_equal(made.waveform, Sound(AUDIO.analysis, log_mel=sound.log_mel).waveform), "phases have a seed"
    assert np.array_equal(made.waveform * 2**15, np.rint(made.waveform * 2**15)), "WAV files of 16 bits hold it"
    silent = Sound(AUDIO.analysis, log_mel=np.full((64, 8), -80, np.float32))
    assert np.abs(silent.waveform).max() == 0


def test_sounds_travel_between_processes() -> None:
    again = pickle.loads(pickle.dumps(AUDIO.check(tone(), "x")))
    assert np.array_equal(again.waveform, tone()) and again.analysis == AUDIO.analysis


# Scores, ensembles and figures.


def test_scores_and_best_constants() -> None:
    metrics = AUDIO.metrics()
    sounds = [AUDIO.check(tone(0.512, amplitude=a), "x") for a in (0.1, 0.2, 0.4)]
    for metric in metrics.values():
        assert metric.score(sounds, sounds) == pytest.approx(0, abs=1e-6)
        best = metric.score([metric.best_constant(sounds)] * 3, sounds)
        for other in sounds:
            assert best <= metric.score([other] * 3, sounds) + 1e-6
    louder = Sound(AUDIO.analysis, log_mel=np.clip(sounds[0].log_mel + 6, -80, 0))
    assert 0 < metrics["mae"].score([louder], sounds[:1]) <= 6
    assert metrics["convergence"].score([sounds[1]], sounds[:1]) == pytest.approx(1, abs=0.02), "twice the amplitude"
    assert metrics["seconds"].score([sounds[0].cut(16)], sounds[:1]) == pytest.approx(0.256)
    early = Sound(AUDIO.analysis, log_mel=sounds[0].log_mel[:, :16])
    half = metrics["mae"].score([early], sounds[:1])
    assert half == pytest.approx(float(np.mean(sounds[0].log_mel[:, 16:] + 80)) / 2, rel=1e-4), (
        "it is silent where it has ended"
    )


def test_ensembles_average_levels() -> None:
    a, b = (Sound(AUDIO.analysis, log_mel=np.full((64, n), level, np.float32)) for n, level in ((10, -20), (20, -40)))
    merged = AUDIO.merge([a, b], 0.5)
    assert merged.log_mel.shape == (64, 15) and merged.log_mel[0, 0] == -30 and merged.log_mel[0, 12] == -60


def test_figures_have_low_frequencies_below_and_hatched_ends() -> None:
    figure = AUDIO.draw(AUDIO.check(tone(0.512, hertz=300), "x"), (160, 240)).astype(int)
    assert figure.shape == (160, 240, 3)
    left, right = figure[20:130, 40:120], figure[20:130, 150:230]
    bright = np.unravel_index((left @ [1, 2, 0]).argmax(), left.shape[:2])[0]
    assert bright > 75, "a low tone is in the lower part"
    assert np.ptp(right, axis=2).max() < 8 and right.std() > 3, "gray stripes"
    assert AUDIO.legend(None, None, 400).shape[1] == 220


@pytest.mark.parametrize("rate", [None, math.nan, math.inf, "16000", 10**400, True, 1j, object()])
def test_rates_that_are_no_numbers_are_refused(rate: Any) -> None:
    for value in ((tone(), rate), {"array": tone(), "sampling_rate": rate}):
        with pytest.raises(BadSample, match="^x: found a sound of rate .*; expected 1000 to 768000 samples per second"):
            AUDIO.check(AUDIO.from_python(value, "x"), "x")


@pytest.mark.parametrize(
    "value", [[[0.1], [0.1, 0.2]], ([0.1], [0.1, [0.2]]), {"array": [1, [2]], "sampling_rate": RATE}]
)
def test_ragged_lists_are_refused(value: Any) -> None:
    with pytest.raises(BadSample, match=r"^x: found .*; expected a waveform \(samples,\)"):
        AUDIO.check(AUDIO.from_python(value, "x"), "x")
