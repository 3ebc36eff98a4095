"""Models of the transformers library with random weights, saved as folders: one small model of each architecture that the tests of teachers use."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers.pre_tokenizers import ByteLevel

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def saved(model: Any, processor: Any, folder: Path) -> str:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def depth_anything(folder: Path) -> str:
    torch.manual_seed(0)
    backbone = hf.Dinov2Config(
        **VIT, image_size=28, patch_size=14, out_features=["stage1", "stage2"], reshape_hidden_states=False
    )
    config = hf.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, reassemble_factors=[2, 1], neck_hidden_sizes=[8, 8], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    processor = hf.DPTImageProcessorPil(size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=14)
    model = hf.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # else all depths are alike
    return saved(model, processor, folder)


def segformer(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    config = hf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2],
        mlp_ratios=[2, 2], decoder_hidden_size=16, id2label=dict(labels), label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = hf.SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=3)
    return saved(model, hf.SegformerImageProcessorPil(size={"height": 32, "width": 32}), folder)


def mask2former(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    backbone = hf.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2, out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = hf.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, num_queries=6, id2label=dict(labels), label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = hf.Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=2)
    return saved(model, hf.Mask2FormerImageProcessorPil(size={"height": 32, "width": 32}), folder)


def yolos(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    config = hf.YolosConfig(**VIT, image_size=[32, 32], patch_size=8, num_detection_tokens=5, id2label=dict(labels), label2id={v: k for k, v in labels.items()})  # fmt: skip
    model = hf.YolosForObjectDetection(config)
    torch.nn.init.normal_(model.class_labels_classifier.layers[-1].weight, std=2)
    return saved(model, hf.YolosImageProcessorPil(size={"height": 32, "width": 32}), folder)


def clip(folder: Path) -> str:
    torch.manual_seed(0)
    config = hf.CLIPConfig(
        text_config={**VIT, "vocab_size": 50},
        vision_config={**VIT, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    return saved(
        hf.CLIPModel(config),
        hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        folder,
    )


def dinov2(folder: Path) -> str:
    torch.manual_seed(0)
    model = hf.Dinov2Model(hf.Dinov2Config(**VIT, image_size=28, patch_size=14))
    return saved(
        model, hf.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}), folder
    )


def dinov3(folder: Path) -> str:
    torch.manual_seed(0)
    model = hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT, image_size=32, patch_size=8, num_register_tokens=4))
    return saved(model, hf.ViTImageProcessorPil(size={"height": 32, "width": 32}), folder)


def sam(folder: Path) -> str:
    torch.manual_seed(0)
    config = hf.SamConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 16, "mlp_dim": 16,
            "window_size": 2, "global_attn_indexes": [0], "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    model = hf.SamModel(config)
    torch.nn.init.normal_(model.mask_decoder.iou_prediction_head.proj_out.weight, std=2)
    return saved(
        model, hf.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}), folder
    )


def vitpose(folder: Path, joints: int = 3) -> str:
    torch.manual_seed(0)
    backbone = hf.VitPoseBackboneConfig(image_size=[32, 24], patch_size=[8, 8], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, out_indices=[1])  # fmt: skip
    model = hf.VitPoseForPoseEstimation(hf.VitPoseConfig(backbone_config=backbone, num_labels=joints))
    return saved(model, hf.VitPoseImageProcessorPil(size={"height": 32, "width": 24}), folder)


def words(folder: Path) -> Any:
    """A tokenizer of lower-case letters and a few words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "dog", "on", "the", "sea", *"bcdefghij"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return hf.BertTokenizer(str(folder / "vocab.txt"), model_max_length=32)


def blip(folder: Path) -> str:
    torch.manual_seed(0)
    tokenizer = words(folder)
    text = {
        **VIT,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = hf.BlipConfig(
        text_config=text, vision_config={**VIT, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    processor = hf.BlipProcessor(hf.BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)
    return saved(hf.BlipForConditionalGeneration(config), processor, folder)


def bert(folder: Path, positions: int = 32) -> str:
    torch.manual_seed(0)
    tokenizer = words(folder)
    return saved(
        hf.BertModel(hf.BertConfig(**VIT, vocab_size=len(tokenizer), max_position_embeddings=positions)),
        tokenizer,
        folder,
    )


def wav2vec2(folder: Path) -> str:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<unk>", "|", *"abcdefgh"]
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(letters)}), encoding="utf-8")
    tokenizer = hf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    processor = hf.Wav2Vec2Processor(hf.Wav2Vec2FeatureExtractor(sampling_rate=8000), tokenizer)
    config = hf.Wav2Vec2Config(
        **VIT, vocab_size=len(letters), pad_token_id=0, conv_dim=[8, 8], conv_stride=[10, 8], conv_kernel=[20, 8], num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )  # fmt: skip
    model = hf.Wav2Vec2ForCTC(config)
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    return saved(model, processor, folder)


WHISPER_MARKS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|notimestamps|>",
]


def whisper(folder: Path) -> str:
    """Each token is a byte; exclamation marks are suppressed."""
    torch.manual_seed(0)
    ids = {piece: n for n, piece in enumerate([*sorted(ByteLevel.alphabet()), *WHISPER_MARKS])}
    end, start, english, transcribe, translate, no_times = (ids[mark] for mark in WHISPER_MARKS)
    tokenizer = hf.WhisperTokenizer(vocab=ids, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": WHISPER_MARKS[1:]})
    extractor = hf.WhisperFeatureExtractor(feature_size=8, sampling_rate=16000)
    config = hf.WhisperConfig(
        vocab_size=len(ids), num_mel_bins=8, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=32, pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config)
    model.generation_config.update(
        is_multilingual=True, lang_to_id={"<|en|>": english}, task_to_id={"transcribe": transcribe, "translate": translate},
        no_timestamps_token_id=no_times, max_length=32, suppress_tokens=[ids["!"]], begin_suppress_tokens=[ids["Ġ"], end], allow_custom_entries=True,
    )  # fmt: skip
    model.generation_config._from_model_config = False  # else transformers drops what is not in the model's own config
    return saved(model, hf.WhisperProcessor(extractor, tokenizer), folder)


def zoedepth(folder: Path) -> str:
    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = hf.BeitConfig(
        **{**VIT, "num_hidden_layers": 4},
        image_size=32,
        patch_size=16,
        out_features=stages,
        reshape_hidden_states=False,
    )
    config = hf.ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[8] * 4, reassemble_factors=[4, 2, 1, 0.5], fusion_hidden_size=8, bottleneck_features=8,
        num_attractors=[2] * 4, bin_embedding_dim=8, num_relative_features=8, patch_transformer_hidden_size=8, patch_transformer_intermediate_size=8,
        patch_transformer_num_attention_heads=2, bin_configurations=[{"n_bins": 8, "min_depth": 0.1, "max_depth": 10.0, "name": "nyu"}],
    )  # fmt: skip
    processor = hf.ZoeDepthImageProcessorPil(
        size={"height": 32, "width": 32}, keep_aspect_ratio=False, ensure_multiple_of=16
    )
    return saved(hf.ZoeDepthForDepthEstimation(config), processor, folder)


def upernet(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    backbone = hf.ConvNextConfig(
        num_stages=4,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = hf.UperNetConfig(
        backbone_config=backbone,
        hidden_size=8,
        use_auxiliary_head=False,
        id2label=dict(labels),
        label2id={v: k for k, v in labels.items()},
    )
    return saved(
        hf.UperNetForSemanticSegmentation(config),
        hf.SegformerImageProcessorPil(size={"height": 64, "width": 64}),
        folder,
    )


def rtdetr(folder: Path, labels: Mapping[int, str]) -> str:
    torch.manual_seed(0)
    backbone = hf.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = hf.RTDetrV2Config(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 8, 8], encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16,
        decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_layers=2, decoder_attention_heads=2, num_queries=10, num_denoising=0,
        id2label=dict(labels), label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = hf.RTDetrV2ForObjectDetection(config)
    for head in (model.model.decoder.class_embed[-1], model.model.decoder.bbox_embed[-1].layers[-1]):
        torch.nn.init.normal_(head.weight, std=0.5)
    return saved(model, hf.RTDetrImageProcessorPil(size={"height": 64, "width": 64}), folder)


def siglip(folder: Path) -> str:
    torch.manual_seed(0)
    config = hf.SiglipConfig(
        text_config={**VIT, "vocab_size": 50}, vision_config={**VIT, "image_size": 32, "patch_size": 8}
    )
    return saved(hf.SiglipModel(config), hf.SiglipImageProcessorPil(size={"height": 32, "width": 32}), folder)


def t5(folder: Path) -> str:
    torch.manual_seed(0)
    tokenizer = words(folder)
    config = hf.T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return saved(hf.T5ForConditionalGeneration(config), tokenizer, folder)


def with_license(folder: str, license: str) -> str:
    Path(folder, "README.md").write_text(f"---\nlicense: {license}\n---\n# A model\n", encoding="utf-8")
    return folder
