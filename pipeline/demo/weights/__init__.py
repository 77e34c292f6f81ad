"""The weights that the demo's classifier starts from, as `make pretrain` makes them."""

from pathlib import Path

FILE = Path(__file__).with_name("shufflenet_v2_x0_5-silhouettes.safetensors")
