"""The page as a Space of Hugging Face, or any host that runs `python app.py`. At home, use `captum-sgcampp demo`."""

import os

from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.serve import launch, make_safe_page

# Names as for `--model`: torchvision downloads its weights when the Space starts.
networks = Networks(os.environ.get("SGCAMPP_NETWORKS", "shapes").split())

if __name__ == "__main__":
    # The Space sets GRADIO_SERVER_NAME: its proxy alone reaches the page, and it is open to all.
    launch(make_safe_page(networks)).block_thread()
