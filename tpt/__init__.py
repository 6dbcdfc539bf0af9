"""Test-time adaptation of CLIP-like models: per-image prompt tuning, exact and fast.

    import tpt
    clip = tpt.load_clip("ViT-B-16", pretrained="openai")
    engine = tpt.PromptEngine(clip, ["cat", "dog"], tpt.Context.from_words(clip, "a photo of a"))
    for record in tpt.stream(paths, tpt.TPT(engine), views=tpt.Views(clip, n=64)):
        print(record.path, record.predictions[0].label)

The public names are those of `__init__.pyi`. They are imported when first used, so that `import
tpt` (and `tpt --help`) does not wait for torch.
"""

import lazy_loader

from tpt import errors as errors
from tpt._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
