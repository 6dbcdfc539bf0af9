"""How the embedded model `lite` is made: one module a stage, run in order by `tools/build_lite.py`.

An image tower that was trained on ImageNet is locked; a small causal text tower is taught to say,
for a prompt, the direction in which that tower sees the thing that the prompt names.
"""
