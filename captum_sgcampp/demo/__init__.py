"""A page in the browser that explains pictures: `captum-sgcampp demo`. Needs the extra `demo`, which is Gradio."""
