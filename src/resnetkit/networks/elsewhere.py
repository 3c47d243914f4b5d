"""What other libraries call things that networks have here under another name, or do not have.

Whoever types such a name, out of habit or from a tutorial, is told the name of ours.
"""

ARGUMENTS = {
    "base_width": "group_width",
    "cardinality": "groups",
    "checkpoint_path": "weights=FILE",
    "drop_path_rate": "drop_path",
    "features_only": "net.stages(x), each stage's output by name",
    "global_pool": "net.forward_features(x), which is not pooled",
    "in_chans": "in_channels",
    "inplanes": "stem_width",
    "layers": "depths",
    "num_classes=0": "net.forward_head(features, pre_logits=True), pooled features; or net.fc = torch.nn.Identity()",
    "num_labels": "num_classes",
    "out_indices": "net.stages(x), each stage's output by name",
    "output_stride": "strides=(1, 2, 1, 1), which keeps the resolution; there is no dilation",
    "pretrained": "weights=NAME, one of `resnetkit list weights`",
    "replace_stride_with_dilation": "strides=(1, 2, 1, 1), which keeps the resolution; there is no dilation",
    "width_per_group": "group_width",
    "zero_init_last": "zero_init_residual",
}
"""Arguments with which torchvision, timm and transformers build networks, and what to give instead."""

ATTRIBUTES = {
    "base_width": "net.arch.group_width",
    "classifier": "net.fc",
    "config": "net.arch",
    "default_cfg": "rk.load(...).preprocess, how images are prepared",
    "feature_info": "net.arch.out_widths, the channels that leave each stage",
    "features": "net.forward_features(x)",
    "forward_intermediates": "net.stages(x), each stage's output by name",
    "global_pool": "net.avgpool",
    "groups": "net.arch.groups",
    "head": "net.fc",
    "head_hidden_size": "net.num_features",
    "inplanes": "net.arch.stem_width",
    "linear": "net.fc",
    "num_labels": "net.num_classes",
    "predict": "rk.predict(classifier, files), with what rk.load gives",
    "pretrained_cfg": "rk.load(...).preprocess, how images are prepared",
    "set_grad_checkpointing": "net.recompute = True",
    "transforms": "rk.load(...).preprocess, how images are prepared",
}
"""Attributes that their networks have."""
