"""The keys and values of FunASR's own example configurations of the families, those for training included."""

from __future__ import annotations

from typing import Any

TRAINING: dict[str, Any] = {
    "specaug": "SpecAugLFR",
    "specaug_conf": {"apply_time_warp": False, "time_warp_window": 5, "time_warp_mode": "bicubic"}
    | {"apply_freq_mask": True, "freq_mask_width_range": [0, 30], "lfr_rate": 6, "num_freq_mask": 1}
    | {"apply_time_mask": True, "time_mask_width_range": [0, 12], "num_time_mask": 1},
    "train_conf": {"accum_grad": 1, "grad_clip": 5, "max_epoch": 150, "val_scheduler_criterion": ["valid", "acc"]}
    | {"best_model_criterion": [["valid", "acc", "max"]], "keep_nbest_models": 10, "log_interval": 50},
    "optim": "adam",
    "optim_conf": {"lr": 0.0005},
    "scheduler": "warmuplr",
    "scheduler_conf": {"warmup_steps": 30000},
    "dataset": "AudioDataset",
    "dataset_conf": {"index_ds": "IndexDSJsonl", "batch_sampler": "BatchSampler", "batch_type": "example"}
    | {"batch_size": 1, "max_token_length": 2048, "buffer_size": 500, "shuffle": True, "num_workers": 0},
    "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
}
TOKENIZER: dict[str, Any] = {
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
}
FBANK = {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
DROPOUT = {"dropout_rate": 0.1, "positional_dropout_rate": 0.1}
SANM = {"pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True, "kernel_size": 11}
DECODER = DROPOUT | {"self_attention_dropout_rate": 0.1, "src_attention_dropout_rate": 0.1, "attention_heads": 4}
PARAFORMER: dict[str, Any] = (
    TRAINING
    | {"normalize": None}
    | TOKENIZER
    | {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True}
        | {"predictor_weight": 1.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoder",
        "encoder_conf": DROPOUT
        | SANM
        | {"output_size": 512, "attention_heads": 4, "linear_units": 2048, "num_blocks": 50}
        | {"attention_dropout_rate": 0.1, "input_layer": "pe", "sanm_shfit": 0, "selfattention_layer_type": "sanm"},
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": DECODER
        | {"linear_units": 2048, "num_blocks": 16, "att_layer_num": 16, "kernel_size": 11, "sanm_shfit": 0},
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": 512, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        "frontend": "WavFrontend",
        "frontend_conf": FBANK | {"lfr_m": 7, "lfr_n": 6},
        "input_size": 560,
    }
)
STREAMING = PARAFORMER | {
    "model": "ParaformerStreaming",
    "encoder": "SANMEncoderChunkOpt",
    "encoder_conf": PARAFORMER["encoder_conf"]
    | {"input_layer": "pe_online", "chunk_size": [12, 15], "stride": [8, 10], "pad_left": [0, 0]}
    | {"encoder_att_look_back_factor": [4, 4], "decoder_att_look_back_factor": [1, 1]},
    "decoder_conf": PARAFORMER["decoder_conf"] | {"sanm_shfit": 5},
    "frontend": "WavFrontendOnline",
}
SEACO = PARAFORMER | {
    "model": "SeacoParaformer",
    "model_conf": PARAFORMER["model_conf"]
    | {"inner_dim": 512, "bias_encoder_type": "lstm", "bias_encoder_bid": False, "seaco_lsm_weight": 0.1}
    | {"seaco_length_normal": True, "train_decoder": False, "NO_BIAS": 8377},
    "seaco_decoder": "ParaformerSANMDecoder",
    "seaco_decoder_conf": DECODER
    | {"linear_units": 1024, "num_blocks": 4, "kernel_size": 21, "sanm_shfit": 0}
    | {"use_output_layer": False, "wo_input_layer": True},
    "predictor": "CifPredictorV3",
    "predictor_conf": PARAFORMER["predictor_conf"]
    | {"smooth_factor2": 0.25, "noise_threshold2": 0.01, "upsample_times": 3, "use_cif1_cnn": False}
    | {"upsample_type": "cnn_blstm"},
}
SENSE_VOICE: dict[str, Any] = {
    "encoder": "SenseVoiceEncoderSmall",
    "encoder_conf": PARAFORMER["encoder_conf"] | {"tp_blocks": 20},
    "model": "SenseVoiceSmall",
    "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
    "tokenizer": "SentencepiecesTokenizer",
    "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    "frontend": "WavFrontend",
    "frontend_conf": FBANK | {"lfr_m": 7, "lfr_n": 6, "cmvn_file": None},
    "dataset": "SenseVoiceCTCDataset",
    "dataset_conf": {"index_ds": "IndexDSJsonl", "sos": "${model_conf.sos}", "eos": "${model_conf.eos}", "retry": 20},
    "train_conf": TRAINING["train_conf"],
    "optim": "adamw",
}
PUNCTUATION: dict[str, Any] = {
    "model": "CTTransformer",
    "model_conf": {"ignore_id": 0, "embed_unit": 256, "att_unit": 256, "dropout_rate": 0.1, "sentence_end_id": 3}
    | {"punc_list": ["<unk>", "_", "\uff0c", "\u3002", "\uff1f", "\u3001"], "punc_weight": [1.0] * 6},
    "encoder": "SANMEncoder",
    "encoder_conf": DROPOUT
    | SANM
    | {"input_size": 256, "output_size": 256, "attention_heads": 8, "linear_units": 1024, "num_blocks": 4}
    | {"attention_dropout_rate": 0.0, "input_layer": "pe", "sanm_shfit": 0, "selfattention_layer_type": "sanm"}
    | {"padding_idx": 0},
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>"},
}
REALTIME = PUNCTUATION | {
    "model": "CTTransformerStreaming",
    "encoder": "SANMVadEncoder",
    "encoder_conf": PUNCTUATION["encoder_conf"] | {"num_blocks": 3, "sanm_shfit": 5},
}
VAD: dict[str, Any] = {
    "model": "FsmnVADStreaming",
    "model_conf": {"sample_rate": 16000, "detect_mode": 1, "snr_mode": 0, "max_end_silence_time": 800}
    | {"max_start_silence_time": 3000, "do_start_point_detection": True, "do_end_point_detection": True}
    | {"window_size_ms": 200, "sil_to_speech_time_thres": 150, "speech_to_sil_time_thres": 150}
    | {"speech_2_noise_ratio": 1.0, "do_extend": 1, "lookback_time_start_point": 200}
    | {"lookahead_time_end_point": 100, "max_single_segment_time": 60000, "snr_thres": -100.0}
    | {"noise_frame_num_used_for_snr": 100, "decibel_thres": -100.0, "speech_noise_thres": 0.6}
    | {"fe_prior_thres": 0.0001, "silence_pdf_num": 1, "sil_pdf_ids": [0], "speech_noise_thresh_low": -0.1}
    | {"speech_noise_thresh_high": 0.3, "output_frame_probs": False, "frame_in_ms": 10, "frame_length_ms": 25},
    "encoder": "FSMN",
    "encoder_conf": {"input_dim": 400, "input_affine_dim": 140, "fsmn_layers": 4, "linear_dim": 250, "proj_dim": 128}
    | {"lorder": 20, "rorder": 0, "lstride": 1, "rstride": 0, "output_affine_dim": 140, "output_dim": 248},
    "frontend": "WavFrontend",
    "frontend_conf": FBANK | {"dither": 0.0, "lfr_m": 5, "lfr_n": 1},
}
AUDIO: dict[str, Any] = {
    "type": "AUDIO",
    "prenet_depth": 4,
    "prenet_layerdrop": 0.05,
    "prenet_dropout": 0.1,
    "start_drop_path_rate": 0.0,
    "end_drop_path_rate": 0.0,
    "num_extra_tokens": 10,
    "init_extra_token_zero": True,
    "mask_noise_std": 0.01,
    "mask_prob_min": None,
    "mask_prob": 0.5,
    "inverse_mask": False,
    "mask_length": 5,
    "ema_local_encoder": False,
    "local_grad_mult": 1.0,
    "use_alibi_encoder": True,
    "alibi_scale": 1.0,
    "learned_alibi": False,
    "alibi_max_pos": None,
    "learned_alibi_scale": True,
    "learned_alibi_scale_per_head": True,
    "learned_alibi_scale_per_layer": False,
    "num_alibi_heads": 12,
    "model_depth": 8,
    "decoder": {"decoder_dim": 384, "decoder_groups": 16, "decoder_kernel": 7, "decoder_layers": 4}
    | {"input_dropout": 0.1, "decoder_residual": True, "projection_layers": 1, "projection_ratio": 2.0},
    "extractor_mode": "layer_norm",
    "feature_encoder_spec": "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]",
    "conv_pos_width": 95,
    "conv_pos_groups": 16,
    "conv_pos_depth": 5,
    "conv_pos_pre_ln": False,
}
EMOTION: dict[str, Any] = {
    "model": "Emotion2vec",
    "model_conf": {"loss_beta": 0.0, "loss_scale": None, "depth": 8, "start_drop_path_rate": 0.0}
    | {"end_drop_path_rate": 0.0, "num_heads": 12, "norm_eps": 1e-5, "norm_affine": True, "encoder_dropout": 0.1}
    | {"post_mlp_drop": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0, "dropout_input": 0.0}
    | {"layerdrop": 0.05, "embed_dim": 768, "mlp_ratio": 4.0, "layer_norm_first": False, "average_top_k_layers": 8}
    | {"end_of_block_targets": False, "clone_batch": 8, "ema_decay": 0.999, "ema_anneal_end_step": 20000}
    | {"shared_decoder": None, "supported_modality": "AUDIO", "skip_ema": False, "cls_type": "chunk"}
    | {"normalize": True, "modalities": {"audio": AUDIO}},
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    "scope_map": ["d2v_model.", "none", "proj.", "proj."],
}
TEMPLATES: dict[str, tuple[str, dict[str, Any]]] = {
    "paraformer": ("paraformer", PARAFORMER),
    "paraformer_streaming": ("paraformer_streaming", STREAMING),
    "seaco_paraformer": ("seaco_paraformer", SEACO),
    "sensevoice": ("sensevoice", SENSE_VOICE),
    "ct_transformer": ("ct_transformer", PUNCTUATION),
    "ct_transformer_streaming": ("ct_transformer", REALTIME),
    "fsmn_vad_streaming": ("fsmn_vad", VAD),
    "emotion2vec": ("emotion2vec", EMOTION),
}
