"""A page of this machine for trying trained models; the only place of Gradio."""
