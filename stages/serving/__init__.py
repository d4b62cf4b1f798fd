"""What a release needs to be served by Triton: a model repository, its Python backend and the server itself.

A build becomes several models of Triton. `<model>` is FunASR's whole pipeline, audio in and text out, on one or two
rows of the table `PIPELINES`; `<model>_<graph>` is each ONNX graph or engine alone, with FunASR's tensor names.
"""
