"""What several families share.

A checkpoint's files: `checkpoint`, `weights` (model.pt), `yaml_config` (config.yaml), `schema` and `schema_parts` (what
it may say), `tokens`, `cmvn`. Networks written for export: `sanm`, `cif`. Recognized text: `asr`.
"""
